"""The last step runs while the steps before it go on, however few CPUs they leave."""

import time
from collections.abc import Iterator

import pytest
import ray
import ray.data

from pipeline.cluster.data_context import keep_rows_apart
from pipeline.cluster.last_step import never_hold_back_last_step


def read(row: dict) -> Iterator[dict]:
    """Read for a while, piece by piece."""
    for _ in range(8):
        time.sleep(0.1)
        yield {"read": time.time()}


class Replica:
    """Hands a row on."""

    def __call__(self, row: dict) -> dict:
        return row


def write(row: dict) -> dict:
    return {**row, "written": time.time()}


@pytest.mark.parametrize("held_back", [True, False])
def test_what_is_done_is_written_while_the_rest_is_read(
    ray_session: str, monkeypatch: pytest.MonkeyPatch, *, held_back: bool
):
    """Where reading and actors have all CPUs of Ray's budgets, writing waits for neither.

    Left to Ray, which the first case shows, it waits until the last piece is read.
    """
    monkeypatch.setattr(ray.data.DataContext.get_current(), "enable_progress_bars", False)
    rows = ray.data.from_items([{"number": n} for n in range(4)], override_num_blocks=4)
    keep_rows_apart(rows.context)
    # As much as Ray counts there where the actors leave less than a whole CPU on a node.
    rows.context.execution_options.resource_limits = ray.data.ExecutionResources(cpu=1.6)
    if not held_back:
        never_hold_back_last_step(rows.context)
    readers = ray.data.TaskPoolStrategy(size=2)
    pool = ray.data.ActorPoolStrategy(size=1)

    chain = (
        rows.flat_map(read, num_cpus=0.25, compute=readers)
        .map(Replica, num_cpus=1.2, compute=pool)
        .map(write, num_cpus=0.2, compute=readers)
    )
    done = list(chain.iter_rows())

    assert len(done) == 32
    last_read = max(row["read"] for row in done)
    early = sum(row["written"] < last_read for row in done)
    assert (early == 0) if held_back else (early > 0), early
