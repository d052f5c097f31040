"""A mailbox on the driver, which workers on other nodes write to."""

import contextlib
from collections.abc import Iterator
from typing import Any

import ray
import ray.util.queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


class Mailbox:
    """Holds messages; travels to workers."""

    def __init__(self) -> None:
        """Open it beside the driver, so that it does not die with a node of workers."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._queue = ray.util.queue.Queue(
            actor_options={"num_cpus": 0, "scheduling_strategy": here}
        )

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; returns when it has arrived."""
        self._queue.put(message)

    def arrived(self) -> Iterator[dict[str, Any]]:
        """Take out the messages that have arrived, one by one."""
        while not self._queue.empty():
            yield self._queue.get()

    def close(self) -> None:
        """End it, with what is in it."""
        # Where Ray is gone, it is, too, and what ended Ray is to be said.
        with contextlib.suppress(Exception):
            self._queue.shutdown(force=True)
