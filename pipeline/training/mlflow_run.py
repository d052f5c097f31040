"""A training as a run of MLflow."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.errors import SettingError
from pipeline.training.plan import TrainingPlan

if TYPE_CHECKING:
    from mlflow import MlflowClient

_EXPERIMENT = "fcn-pipeline"
_RUN, _FINGERPRINT = "fcn.run", "fcn.fingerprint"
# MLflow's limits on values of parameters.
_MAX_CHARACTERS = 500


class MlflowRun:
    """Implements `tracker.Tracker`."""

    def __init__(self, plan: TrainingPlan) -> None:
        """Look for MLflow; its server is asked by `begin`.

        Args:
            plan: What is trained.

        Raises:
            SettingError: The package is not installed, or can't use `MLFLOW_TRACKING_URI`.
        """
        self._plan = plan
        self._client = _client()
        self._run_id = ""

    @staticmethod
    def check() -> None:
        """Implement `tracker.Tracker.check`."""
        _client()

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

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        """Implement `tracker.Tracker.add`."""
        for name, value in numbers.items():
            self._client.log_metric(self._run_id, _name(name), value, step=step)

    def end(self, *, failed: bool) -> None:
        """Implement `tracker.Tracker.end`."""
        self._client.set_terminated(self._run_id, "FAILED" if failed else "FINISHED")

    def _experiment_id(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        return self._client.create_experiment(name) if found is None else found.experiment_id


def _name(metric: str) -> str:
    """Write a name with the characters that MLflow takes."""
    return "".join(one if one.isalnum() or one in "_-./ " else "_" for one in metric)


def _client() -> "MlflowClient":
    client = _client_class()
    try:
        return client()
    except Exception as error:
        # No server is asked yet: an unknown scheme, or a store without what it needs.
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        said = str(error).partition("\n")[0]
        raise SettingError(
            f"tracker=mlflow: MLFLOW_TRACKING_URI is {uri or 'not set'}, and MLflow can't use "
            f"that: {said} Set it to that of a server"
        ) from error


def _client_class() -> "type[MlflowClient]":
    try:
        # An extra, which takes seconds to import.
        from mlflow import MlflowClient  # noqa: PLC0415
    except ImportError as error:
        raise SettingError(
            "tracker=mlflow needs MLflow's client: pip install 'fcn-pipeline[mlflow]'"
        ) from error
    return MlflowClient
