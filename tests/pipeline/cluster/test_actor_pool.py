"""The watch over the pool of replicas, with Ray's private parts that it uses."""

import logging
import os
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
import ray
import ray.data
from ray.util.placement_group import placement_group, placement_group_table

from pipeline.cluster import actor_pool
from pipeline.cluster.actor_pool import watch_replicas


class Replica:
    """Takes its time, and says which process it is."""

    def __call__(self, row: dict) -> dict:
        time.sleep(0.2)
        return {"pid": os.getpid()}


@pytest.mark.parametrize(("max_replicas", "number"), [(1, 1), (2, 2), (9, 2)])
def test_the_pool_grows_to_what_there_is_room_for(
    ray_session: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    max_replicas: int,
    number: int,
):
    """Begun with one, a pool gets a second replica when there is room and it may; it is said.

    The room that was set aside is given back.
    """
    monkeypatch.setattr(actor_pool, "_GROW_S", 0.1)
    context = ray.data.DataContext.get_current()
    monkeypatch.setattr(context, "custom_execution_callback_classes", [])
    monkeypatch.setattr(context, "enable_progress_bars", False)
    room = placement_group([{"CPU": 0.1}])
    watch_replicas(room, max_replicas, lambda *_: 2, lambda *_: 1)
    rows = ray.data.range(60, override_num_blocks=60)
    pool = ray.data.ActorPoolStrategy(size=1)

    with caplog.at_level(logging.INFO, "pipeline.cluster.actor_pool"):
        pids = {row["pid"] for row in rows.map(Replica, num_cpus=0.3, compute=pool).iter_rows()}

    assert len(pids) == number
    assert f"{number} replica(s) at work" in caplog.text
    assert placement_group_table(room)["state"] == "REMOVED"


class Slow:
    """Notes when it was at work."""

    def __call__(self, row: dict) -> Iterator[dict]:
        begun = time.time()
        time.sleep(0.2)
        yield {"begun": begun, "ended": time.time()}


@pytest.mark.parametrize("allowed", [1, 2])
def test_a_step_with_a_limit_grows_with_the_pool(
    ray_session: str, monkeypatch: pytest.MonkeyPatch, allowed: int
):
    """Begun with one task at a time, a step may run a second one when there is room for it."""
    monkeypatch.setattr(actor_pool, "_GROW_S", 0.1)
    context = ray.data.DataContext.get_current()
    monkeypatch.setattr(context, "custom_execution_callback_classes", [])
    monkeypatch.setattr(context, "enable_progress_bars", False)
    watch_replicas(placement_group([{"CPU": 0.1}]), 1, lambda *_: 1, lambda *_: allowed)
    rows = ray.data.range(30, override_num_blocks=30)
    one = ray.data.TaskPoolStrategy(size=1)
    pool = ray.data.ActorPoolStrategy(size=1)

    chain = rows.flat_map(Slow(), num_cpus=0.1, compute=one).map(Pass, num_cpus=0.3, compute=pool)
    spans = sorted((row["begun"], row["ended"]) for row in chain.iter_rows())

    together = sum(later[0] < before[1] for before, later in pairwise(spans))
    assert (together > 0) == (allowed > 1)


class Pass:
    """Hands a row on."""

    def __call__(self, row: dict) -> dict:
        return row
