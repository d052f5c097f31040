"""A training run's folder, where stores ignore put-if-absent and where they do not."""

import json
from pathlib import Path

import pytest

from jobs.scenes import CLASSES
from jobs.train_settings import TrainSettings
from jobs.training.plan import TrainingPlan, open_plan
from jobs.training.run import TrainingRun
from pipeline.errors import FingerprintMismatch
from pipeline.job import writable_storage
from pipeline.storage import Storage
from tests.jobs.training_product import scenes, train
from tests.servers import Server


@pytest.mark.parametrize("kind", ["s3", "naive_s3"])
def test_a_run_of_other_settings_is_refused_by_every_store(
    kind: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
):
    """run.json is never written over, also where the store ignores `If-None-Match`."""
    server: Server = request.getfixturevalue(kind)
    output = f"s3://{server.make_bucket()}/out"
    data = scenes(tmp_path, 2, 1)
    settings = TrainSettings(data=str(data), output=output, run_name="run")
    folder = f"{output}/run"
    run = TrainingRun(writable_storage(Storage(server.endpoint_url), folder), folder)
    run.start(open_plan(settings))
    before = run.storage.read(f"{folder}/run.json")

    run.start(open_plan(settings))
    endpoint = ("--s3-endpoint-url", server.endpoint_url)
    assert train(data, output, "run", "--seed", 1, *endpoint) == 6

    assert "seed was 0, is 1" in caplog.text
    assert run.storage.read(f"{folder}/run.json") == before


def test_a_refusal_of_other_classes_is_short(tmp_path: Path):
    """Lists of classes are not repeated: their numbers, or the first names that differ."""
    data = scenes(tmp_path, 2, 1)
    run = TrainingRun(Storage(), f"file://{tmp_path}/run")

    def plan(names: list[str]) -> TrainingPlan:
        classes = [{"id": at, "name": name, "color": [at] * 3} for at, name in enumerate(names)]
        (data / "classes.json").write_text(json.dumps({"classes": classes}))
        return open_plan(TrainSettings(data=str(data), output=str(tmp_path), run_name="run"))

    names = [name for name, _ in CLASSES]
    run.start(plan(names))
    for others, words in (
        (names[:-1], "classes was 6 of them, is 5 of them"),
        ([*names[:-1], "moon"], f"classes[5][0] was '{names[-1]}', is 'moon'"),
    ):
        with pytest.raises(FingerprintMismatch) as raised:
            run.check(plan(others))
        assert words in str(raised.value)
        assert len(str(raised.value)) < 400
