"""Tasks of Ray Data: one for each row."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray.data

from pipeline.cluster.data_context import set_switches
from pipeline.cluster.reservation import give_back, wait_for_room
from pipeline.settings.shared import ConnectionFields

# What Ray sets aside for a task: less than a worker of a training of any size, so that they never
# fuse, and small enough that two fit beside a worker on two cores.
TASK_CPUS = 0.5


def wait_for_a_task(settings: ConnectionFields) -> None:
    """Wait until a cluster, if it is one, has room for a task. Raises WaitedTooLong."""
    if settings.ray_address is None:
        return
    each = {"CPU": TASK_CPUS}
    give_back(wait_for_room(1, "task(s)", each, {}, settings))


def in_tasks(
    rows: Sequence[Mapping[str, Any]],
    work: Callable[[Any], Mapping[str, Any]],
    max_wait_minutes: float | None,
) -> Any:
    """Lay out work on rows as a dataset, which does it when it is read, in the order of the rows.

    Args:
        rows: At least one.
        work: Done on each of them; travels to tasks.
        max_wait_minutes: Without any progress; None where somebody else minds it.
    """
    # Ray types every row as a class of its own.
    source: Any = ray.data.from_items([dict(row) for row in rows], override_num_blocks=len(rows))
    done = source.map(work, num_cpus=TASK_CPUS)
    done.context.execution_options.preserve_order = True
    set_switches(done.context, max_wait_minutes)
    return done
