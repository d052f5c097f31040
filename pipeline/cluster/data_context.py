"""The switches of Ray Data, which stand here for all that runs on it."""

from collections.abc import Iterator
from typing import Any

import ray.data

_NO_LIMIT = -1


def set_switches(context: ray.data.DataContext, max_wait_minutes: float | None) -> None:
    """Let what runs in a context fail as the rest of the product does.

    Args:
        context: The context of one dataset, or the current one, which all later datasets take over.
        max_wait_minutes: Without any progress; None where somebody else minds it.
    """
    # An image's failure is a row; what is left is the run's.
    context.max_errored_blocks = 0
    # An error of ours keeps its exit code.
    context.raise_original_map_exception = True
    # Ray's bars count blocks; ours counts images.
    context.enable_progress_bars = False
    # Waiting for a GPU must not end a run, a hang must.
    context.execution_no_progress_timeout_s = (
        _NO_LIMIT if max_wait_minutes is None else 60 * max_wait_minutes
    )
    # Out of memory while it loads: five times, and it is no accident.
    context.max_consecutive_actor_init_deaths = 5


def keep_rows_apart(context: ray.data.DataContext) -> None:
    """Let every row be a block of its own, which goes on as soon as it is there.

    A task that makes many rows then holds no more than the next one and those that Ray lets it be
    ahead (two).

    Args:
        context: The context of one dataset.
    """
    context.target_max_block_size = 1


def watch_execution(watch: Any) -> None:
    """Call something at every step of what Ray Data does next in this process.

    Args:
        watch: Builds an `ExecutionCallback` of Ray; is called without arguments.
    """
    # Ray types the list as one of classes; it calls what is in there.
    ray.data.DataContext.get_current().custom_execution_callback_classes = [watch]


def steps(executor: Any) -> Iterator[Any]:
    """List the steps of an execution, as its callbacks get it, from the first to the last.

    Args:
        executor: Ray's `StreamingExecutor`.
    """
    yield from executor._topology  # noqa: SLF001 - nothing public leads to them
