"""A training run's folder, where stores ignore put-if-absent and where they do not."""

from pathlib import Path

import pytest

from jobs.train_settings import TrainSettings
from jobs.training.plan import open_plan
from jobs.training.run import TrainingRun
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
    run.open(open_plan(settings))
    before = run.storage.read(f"{folder}/run.json")

    run.open(open_plan(settings))
    endpoint = ("--s3-endpoint-url", server.endpoint_url)
    assert train(data, output, "run", "--seed", 1, *endpoint) == 6

    assert "seed was 0, is 1" in caplog.text
    assert run.storage.read(f"{folder}/run.json") == before
