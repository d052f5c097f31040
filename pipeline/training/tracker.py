"""MLflow: what a training measures is shown there as well.

The run's own files are the truth. A server that does not answer costs a warning, and no training.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pipeline.errors import SettingError
from pipeline.training.plan import TrainingPlan

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)

_EXPERIMENT = "fcn-pipeline"
_RUN, _FINGERPRINT = "fcn.run", "fcn.fingerprint"
# MLflow's limits on values of parameters.
_MAX_CHARACTERS = 500

Track = Callable[[Mapping[str, Any]], None]


def check_tracker(tracker: str | None) -> None:
    """Refuse a tracker whose package is not installed.

    Args:
        tracker: As the setting has it.

    Raises:
        SettingError: It is not.
    """
    if tracker is not None:
        _client_class()


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
    tracked = _Tracked(plan)
    # Requests wait for their server, which the training must not.
    with ThreadPoolExecutor(1, thread_name_prefix="tracker") as pool:

        def later(work: Callable[..., None], *arguments: object) -> None:
            pool.submit(tracked.attempt, work, *arguments)

        later(tracked.begin)
        try:
            yield lambda line: later(tracked.add, line)
        except BaseException:
            later(tracked.end, "FAILED")
            raise
        later(tracked.end, "FINISHED")


def _ignore(_: Mapping[str, Any]) -> None:
    """Take the line of an evaluation that nobody tracks."""


class _Tracked:
    """A run of MLflow; called by one thread."""

    def __init__(self, plan: TrainingPlan) -> None:
        self._plan = plan
        self._client = _client_class()()
        self._run_id = ""
        self._failed = False

    def attempt(self, work: Callable[..., None], *arguments: object) -> None:
        """Do some work; after the first that fails nothing more is done."""
        if self._failed:
            return
        try:
            work(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever a server or a library of it says
            self._failed = True
            _log.warning(
                "tracker=mlflow: the training goes on untracked, since MLflow says: %s; "
                "metrics.jsonl has all of it",
                str(error).splitlines()[0] if str(error) else type(error).__name__,
            )

    def begin(self) -> None:
        """Find the run that an earlier command has begun, or begin one."""
        experiment_id = self._experiment_id()
        tags = {_RUN: self._plan.folder, _FINGERPRINT: self._plan.fingerprint}
        asked = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        found = self._client.search_runs([experiment_id], asked, max_results=1)
        if found:
            self._run_id = found[0].info.run_id
            self._client.update_run(self._run_id, status="RUNNING")
            return
        name = self._plan.settings.run_name
        self._run_id = self._client.create_run(experiment_id, tags=tags, run_name=name).info.run_id
        for key, value in self._plan.settings.model_dump(mode="json").items():
            if value is not None:
                self._client.log_param(self._run_id, key, str(value)[:_MAX_CHARACTERS])

    def add(self, line: Mapping[str, Any]) -> None:
        """Keep the numbers of an evaluation."""
        of_classes = {f"class_iu/{name}": iu for name, iu in line.get("class_iu", {}).items()}
        for name, value in {**line, **of_classes}.items():
            if isinstance(value, int | float) and name not in ("stage", "total_steps"):
                self._client.log_metric(
                    self._run_id, _name(name), float(value), step=line["total_steps"]
                )

    def end(self, status: str) -> None:
        """Say how the training has ended."""
        self._client.set_terminated(self._run_id, status)

    def _experiment_id(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        return self._client.create_experiment(name) if found is None else found.experiment_id


def _name(metric: str) -> str:
    """Write a name with the characters that MLflow takes."""
    return "".join(one if one.isalnum() or one in "_-./ " else "_" for one in metric)


def _client_class() -> "type[MlflowClient]":
    try:
        # An extra, which takes seconds to import.
        from mlflow import MlflowClient  # noqa: PLC0415
    except ImportError as error:
        raise SettingError(
            "tracker=mlflow needs MLflow's client: pip install 'fcn-pipeline[mlflow]'"
        ) from error
    return MlflowClient
