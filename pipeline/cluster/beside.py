"""Tasks beside a dataset: some at a time, in any order, with what little CPU they are given.

What fails here is logged and left: it is for work that somebody does again if it is not there.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import ray

from pipeline.cluster.ray_errors import last_line, own_errors

_log = logging.getLogger(__name__)

# Little, so that it fits beside replicas; not nothing, or it would be done on the head as well.
_NUM_CPUS = 0.1
_CPUS_PER_TASK = 8
_MOST = 16


class Beside:
    """Does work on items in Ray tasks, while this process does something else."""

    def __init__(self, what: str, work: Callable[[Any], None]) -> None:
        """Take the work along; nothing is started.

        Args:
            what: Is done, for the log.
            work: On an item; travels to the tasks, as the items do.
        """
        self._what = what
        self._task = ray.remote(num_cpus=_NUM_CPUS)(_do)
        self._work = ray.put(work)
        self._waiting: deque[Any] = deque()
        self._under_way: list[ray.ObjectRef[Any]] = []

    def add(self, items: Iterable[Any]) -> None:
        """Take on more items."""
        self._waiting.extend(items)

    def go_on(self, timeout_s: float = 0.0) -> bool:
        """Start what there is room for.

        Args:
            timeout_s: How long to wait for the end of any task that is under way.

        Returns:
            Whether any task has ended.

        Raises:
            ClusterLost: Ray is no longer there for this process.
        """
        with own_errors():
            done = self._ended(timeout_s)
            while self._waiting and len(self._under_way) < _most():
                self._under_way.append(self._task.remote(self._work, self._waiting.popleft()))
        return done

    def _ended(self, timeout_s: float) -> bool:
        if not self._under_way:
            return False
        done, self._under_way = ray.wait(self._under_way, timeout=timeout_s)
        for one in done:
            try:
                ray.get(one)
            except ray.exceptions.RayError as error:
                _log.warning("%s: %s; it is done again at the end", self._what, last_line(error))
        return bool(done)

    def finish(self, patience_s: float) -> None:
        """Do the rest; where nothing gets on, what is left is given up.

        Args:
            patience_s: How long nothing may end.

        Raises:
            ClusterLost: Ray is no longer there for this process.
        """
        self.go_on()
        while self._under_way:
            if not self.go_on(patience_s):
                _log.warning("%s: no task has ended for %.0f s", self._what, patience_s)
                break
        for one in self._under_way:
            ray.cancel(one)
        self._waiting.clear()
        self._under_way.clear()


def _most() -> int:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray's
    return min(_MOST, max(1, int(resources.get("CPU", 0)) // _CPUS_PER_TASK))


def _do(work: Callable[[Any], None], item: Any) -> None:
    work(item)
