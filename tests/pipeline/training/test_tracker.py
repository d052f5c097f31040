"""MLflow beside a training: what it shows, and that it can't cost one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from pipeline.errors import SettingError
from pipeline.training.tracker import check_tracker, tracking

_LINE = {
    "stage": 0,
    "network": "fcn_all_skips",
    "epoch": 2.0,
    "total_steps": 30,
    "loss": 0.5,
    "best": True,
    "mean_iu": 0.25,
    "class_iu": {"sky": 0.75, "a & b": None},
}


@dataclass(frozen=True)
class _Settings:
    run_name: str = "tonight"
    tracker: str | None = "mlflow"

    def model_dump(self, mode: str) -> dict[str, Any]:
        assert mode == "json"
        return {"run_name": self.run_name, "width": 8, "weights": None}


@dataclass(frozen=True)
class _Plan:
    folder: str = "s3://bucket/runs/tonight"
    fingerprint: str = "abc"
    settings: _Settings = field(default_factory=_Settings)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Return a client of a store on the disk, which commands find by MLflow's own variable."""
    # The store on a disk is called out of date, and needs no server.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"file://{tmp_path}/mlruns"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return MlflowClient(uri)


def _train(plan: Any, *lines: dict[str, Any], error: Exception | None = None) -> None:
    with tracking(plan) as track:
        for line in lines:
            track(line)
        if error is not None:
            raise error


def test_evaluations_are_metrics_by_their_step(client: MlflowClient) -> None:
    """Numbers are metrics, settings parameters; the run has its name and ends as the training."""
    _train(_Plan(), _LINE, {**_LINE, "total_steps": 60, "mean_iu": 0.5})

    [experiment] = [one for one in client.search_experiments() if one.name == "fcn-pipeline"]
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("tonight", "FINISHED")
    assert run.data.params == {"run_name": "tonight", "width": "8"}
    history = client.get_metric_history(run.info.run_id, "mean_iu")
    assert [(one.step, one.value) for one in history] == [(30, 0.25), (60, 0.5)]
    assert run.data.metrics["class_iu/sky"] == 0.75
    assert "network" not in run.data.metrics


def test_a_resumed_training_goes_on_in_its_run(client: MlflowClient) -> None:
    """A training that failed and is resumed is one run; another one is another run."""
    with pytest.raises(RuntimeError, match="a worker died"):
        _train(_Plan(), _LINE, error=RuntimeError("a worker died"))
    [experiment] = [one for one in client.search_experiments() if one.name == "fcn-pipeline"]
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"

    _train(_Plan(), {**_LINE, "total_steps": 60})
    _train(_Plan(fingerprint="another"), _LINE)

    runs = client.search_runs([experiment.experiment_id])
    assert [one.info.status for one in runs] == ["FINISHED"] * 2
    steps = {len(client.get_metric_history(one.info.run_id, "loss")) for one in runs}
    assert steps == {1, 2}


def test_mlflow_that_fails_costs_a_warning(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that refuses or is gone is said once, and the training goes on."""

    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("nobody there")

    monkeypatch.setattr(MlflowClient, "log_metric", fail)
    _train(_Plan(), _LINE, _LINE)
    assert caplog.text.count("goes on untracked") == 1
    assert "nobody there" in caplog.text


def test_without_the_package_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named before any work; without the setting nothing is looked for."""
    monkeypatch.setitem(__import__("sys").modules, "mlflow", None)
    check_tracker(None)
    with pytest.raises(SettingError, match=r"pip install 'fcn-pipeline\[mlflow\]'"):
        check_tracker("mlflow")
