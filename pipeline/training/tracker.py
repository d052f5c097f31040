"""Trackers: what a training measures is shown by another program as well.

The run's own files are the truth. A server that does not answer costs a warning, and no training.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

from pipeline.training.mlflow_run import MlflowRun
from pipeline.training.plan import TrainingPlan
from pipeline.training.wandb_run import WandbRun

_log = logging.getLogger(__name__)

Track = Callable[[Mapping[str, Any]], None]


class Tracker(Protocol):
    """A training as a run of another program; called by one thread, and may raise anything."""

    def __init__(self, plan: TrainingPlan) -> None:
        """Take what is trained, on what, and how; nothing is asked of a server yet."""

    @staticmethod
    def check() -> None:
        """Find out whether it can be used. Raises SettingError."""

    def begin(self) -> None:
        """Begin a run, or go on with the one that an earlier command has begun."""

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        """Keep the numbers of an evaluation, at its step."""

    def end(self, *, failed: bool) -> None:
        """Say how the training has ended."""


_TRACKERS: Mapping[str, type[Tracker]] = {"mlflow": MlflowRun, "wandb": WandbRun}


def check_tracker(tracker: str | None) -> None:
    """Refuse a tracker whose package is not installed, or that lacks its credentials.

    Args:
        tracker: As the setting has it.

    Raises:
        SettingError: It is not, or does.
    """
    if tracker is not None:
        _TRACKERS[tracker].check()


@contextmanager
def tracking(plan: TrainingPlan) -> Iterator[Track]:
    """Show a training where its settings say; nowhere, if they don't.

    Args:
        plan: What is trained, on what, and how.

    Yields:
        What takes the line of an evaluation, and does not wait.
    """
    if plan.settings.tracker is None:
        yield _ignore
        return
    tracked = _Tracked(plan.settings.tracker, plan)
    # Requests wait for their server, which the training must not.
    with ThreadPoolExecutor(1, thread_name_prefix="tracker") as pool:
        pool.submit(tracked.attempt, tracked.run.begin)
        try:
            yield lambda line: _later(pool, tracked, line)
        except BaseException:
            pool.submit(tracked.attempt, lambda: tracked.run.end(failed=True))
            raise
        pool.submit(tracked.attempt, lambda: tracked.run.end(failed=False))


def _later(pool: ThreadPoolExecutor, tracked: "_Tracked", line: Mapping[str, Any]) -> None:
    numbers, step = _numbers(line), line["total_steps"]
    pool.submit(tracked.attempt, lambda: tracked.run.add(numbers, step))


def _ignore(_: Mapping[str, Any]) -> None:
    """Take the line of an evaluation that nobody tracks."""


class _Tracked:
    """A run, until something of it fails."""

    def __init__(self, name: str, plan: TrainingPlan) -> None:
        self.run = _TRACKERS[name](plan)
        self._name = name
        self._failed = False

    def attempt(self, work: Callable[[], None]) -> None:
        """Do some work; after the first that fails nothing more is done."""
        if self._failed:
            return
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever a server or a library of it says
            self._failed = True
            _log.warning(
                "tracker=%s: the training goes on untracked: %s; metrics.jsonl has all of it",
                self._name,
                str(error).splitlines()[0] if str(error) else type(error).__name__,
            )


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """Take the numbers out of the line of an evaluation, and those of its classes by name."""
    of_classes = {f"class_iu/{name}": iu for name, iu in line.get("class_iu", {}).items()}
    return {
        name: float(value)
        for name, value in {**line, **of_classes}.items()
        if isinstance(value, int | float) and name not in ("stage", "total_steps")
    }
