"""The last step of a chain in Ray Data, which is never held back."""

from typing import Any

import ray.data

from pipeline.cluster.data_context import steps


def never_hold_back_last_step(context: ray.data.DataContext) -> None:
    """Let the last step run whenever there is something for it to do.

    Ray Data shares the CPUs of a cluster out to the steps, from the first one on. It counts those
    that actors leave free on a node in whole ones, and says of a later step that got none that it
    "can wait for upstream ops to finish and release resources". Actors that stay until the end
    release nothing: nothing would be written before everything is read. Ray itself still runs no
    more tasks than a node has CPUs for.

    Args:
        context: The context of one dataset.
    """
    # Ray types the list as one of classes; it calls what is in there.
    callback: Any = _NeverHoldBackLast
    others = context.custom_execution_callback_classes
    context.custom_execution_callback_classes = [*others, callback]


class _NeverHoldBackLast:
    """An `ExecutionCallback` of Ray; its steps are known when an execution starts."""

    def before_execution_starts(self, executor: Any) -> None:
        """Take the last step out of what budgets are made for, as Ray does for listings."""
        *_, last = steps(executor)
        last.throttling_disabled = lambda: True

    def on_execution_step(self, executor: Any) -> None:
        """Nothing changes later."""

    def after_execution_succeeds(self, executor: Any) -> None:
        """Nothing is left."""

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Nothing is left."""
