"""MLflow and W&B beside a training: what they show, and that they can't cost one."""

import json
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import wandb
from mlflow import MlflowClient
from wandb.proto.wandb_internal_pb2 import Record

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

    def model_dump(self, mode: str, *, exclude_none: bool = False) -> dict[str, Any]:
        assert mode == "json"
        dumped = {"run_name": self.run_name, "width": 8, "weights": None}
        return {name: one for name, one in dumped.items() if not (exclude_none and one is None)}


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


@pytest.fixture
def wandb_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return where W&B writes when it is offline; the process's own state of it is forgotten."""
    wandb.teardown()
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    yield tmp_path / "wandb"
    wandb.teardown()


def _records(folder: Path) -> list[Record]:
    """Read what W&B would send to its server, once its process has written it down."""
    wandb.teardown()
    [path] = folder.glob("offline-run-*/run-*.wandb")
    return [Record.FromString(data) for data in _log_records(path.read_bytes())]


def _log_records(log: bytes) -> Iterator[bytes]:
    """Read a log of LevelDB's format (doc/log_format.md there), behind W&B's own seven bytes."""
    place, data = 7, b""
    while place + 7 <= len(log):
        length, kind = struct.unpack_from("<4xHB", log, place)
        data += log[place + 7 : place + 7 + length]
        place += 7 + length
        if -place % 32768 < 7:  # what is left of a block has no room for a record
            place += -place % 32768
        if kind in (1, 4):  # whole, or its end
            yield data
            data = b""


def test_wandb_has_evaluations_by_their_step(wandb_folder: Path) -> None:
    """A run of the training's name, with its settings, its numbers, and how it ended."""
    plan: Any = _Plan(settings=_Settings(tracker="wandb"))
    check_tracker("wandb")
    _train(plan, _LINE, {**_LINE, "total_steps": 60, "mean_iu": 0.5})

    records = _records(wandb_folder)
    [run] = [one.run for one in records if one.HasField("run")]
    assert (run.project, run.display_name, run.resumed) == ("fcn-pipeline", "tonight", False)
    config = {one.key: json.loads(one.value_json) for one in run.config.update}
    assert {"run_name": "tonight", "width": 8}.items() <= config.items()
    rows = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in one.item}
        for one in (record.history for record in records if record.HasField("history"))
    ]
    shown = [(row["_step"], row["mean_iu"], row["class_iu/sky"]) for row in rows]
    assert shown == [(30, 0.25, 0.75), (60, 0.5, 0.75)]
    assert [one.exit.exit_code for one in records if one.HasField("exit")] == [0]


def test_wandb_knows_a_resumed_training_by_its_id(wandb_folder: Path) -> None:
    """The same training has the same run, and another one another."""
    runs = []
    for fingerprint in ("abc", "abc", "another"):
        plan: Any = _Plan(fingerprint=fingerprint, settings=_Settings(tracker="wandb"))
        with pytest.raises(RuntimeError, match="a worker died"):
            _train(plan, _LINE, error=RuntimeError("a worker died"))
        ids = {path.name.split("-")[3] for path in wandb_folder.glob("offline-run-*")}
        runs.append(len(ids))
    assert runs == [1, 1, 2]


def test_wandb_without_a_key_is_refused_before_any_work(
    wandb_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is asked at a terminal; the message names what there is to set."""
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(SettingError, match="set WANDB_API_KEY, or WANDB_MODE=offline"):
        check_tracker("wandb")


@pytest.mark.runs  # W&B tries for ten seconds
def test_a_wandb_server_that_is_away_costs_a_warning(
    wandb_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The training goes on, and says so once."""
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "2")
    check_tracker("wandb")
    _train(_Plan(settings=_Settings(tracker="wandb")), _LINE, _LINE)
    assert caplog.text.count("goes on untracked") == 1


@pytest.mark.parametrize("uri", ["foo://nowhere", "file:///tmp/mlruns", ""])
def test_an_mlflow_that_can_not_be_opened_is_refused_before_any_work(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Schemes that it does not know, and stores that it has no code for, are no crash.

    Without the variable it takes a database, which its client alone can't open.
    """
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(SettingError, match=f"MLFLOW_TRACKING_URI is {uri or 'not set'}, and"):
        check_tracker("mlflow")


def test_a_mode_that_wandb_does_not_know_is_refused_before_any_work(
    wandb_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message says what there is to choose from, and what was given."""
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(SettingError, match=r"mode .*'offline'.*input_value='ofline'"):
        check_tracker("wandb")


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_without_the_package_the_setting_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing is named before any work; without the setting nothing is looked for."""
    monkeypatch.setitem(sys.modules, name, None)
    check_tracker(None)
    with pytest.raises(SettingError, match=rf"pip install 'fcn-pipeline\[{name}\]'"):
        check_tracker(name)
