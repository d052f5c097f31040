"""Tasks: rows through Ray Data, one task for each, and errors of ours as they were raised."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray.data
from ray.util.placement_group import remove_placement_group

from pipeline.cluster.reservation import wait_for_room
from pipeline.errors import WaitedTooLong, own_error
from pipeline.settings.shared import JobFields

# What Ray sets aside for a task: less than a worker of a training of any size, so that they never
# fuse, and small enough that two fit beside a worker on two cores.
TASK_CPUS = 0.5
_NO_LIMIT = -1


def wait_for_a_task(settings: JobFields) -> None:
    """Wait until a cluster, if it is one, has room for a task. Raises WaitedTooLong."""
    if settings.ray_address is None:
        return
    each = {"CPU": TASK_CPUS}
    remove_placement_group(wait_for_room(1, "task(s)", each, {}, settings))


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
    done.context.enable_progress_bars = False
    done.context.max_errored_blocks = 0
    done.context.raise_original_map_exception = True
    limit_s = _NO_LIMIT if max_wait_minutes is None else 60 * max_wait_minutes
    done.context.execution_no_progress_timeout_s = limit_s
    return done


@contextmanager
def own_errors() -> Iterator[None]:
    """Raise what tasks have raised without what Ray has wrapped it in."""
    try:
        yield
    except ray.exceptions.RayError as error:
        raise own_error(error) from error
    except ray.data.exceptions.ExecutionTimeoutError as error:
        raise WaitedTooLong(
            "no task has got on for max_wait_minutes: they wait for nodes or hang; see `ray status`"
        ) from error
