"""A training run's folder, where stores ignore put-if-absent and where they do not."""

import dataclasses
import json
from pathlib import Path

import pytest

from jobs.demo.scenes import CLASSES
from pipeline.errors import FingerprintMismatch, InputError, SettingError
from pipeline.inputs.data_set import Asked, open_data_set
from pipeline.inputs.inspect import Inspection
from pipeline.settings.train import TrainSettings
from pipeline.store.probe import writable_storage
from pipeline.store.storage import Storage
from pipeline.training.driver import _say_inspection
from pipeline.training.plan import TrainingPlan, open_plan
from pipeline.training.run_folder import TrainingRun
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


def test_early_stopping_without_val_is_refused(tmp_path: Path):
    """Nothing would be counted, and the training would go on to its end without a word."""
    fields = {"data": str(scenes(tmp_path, 4, 0)), "output": str(tmp_path), "run_name": "run"}
    fields["early_stopping_evaluations"] = 2
    with pytest.raises(SettingError, match=r"early_stopping_evaluations=2 .*there is none"):
        open_plan(TrainSettings(**fields))
    assert open_plan(TrainSettings(val_share=0.5, **fields)).val.num_rows == 2


def test_a_batch_of_more_images_than_there_are_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Steps that show images twice are said before the training, those that do not are not."""
    fields = {"data": str(scenes(tmp_path, 2, 1)), "output": str(tmp_path), "run_name": "run"}
    found = Inspection(num_images={"train": 2, "val": 1}, pixels={}, warnings=[])
    for batch_size, warned in ((2, False), (3, True)):
        _say_inspection(open_plan(TrainSettings(batch_size=batch_size, **fields)), found)
        assert ("batch_size=3 is more than the 2 images to train on" in caplog.text) == warned


def test_every_number_of_a_recipe_is_a_setting(tmp_path: Path):
    """What is given takes the place of the recipe's number; all fields of recipes can be given."""
    data = {"data": str(scenes(tmp_path, 2, 1)), "output": str(tmp_path), "run_name": "run"}
    given = {
        "weight_decay": 0.5,
        "schedule": "fixed",
        "warmup_steps": 0,
        "balance": "none",
        "max_class_weight": 2.0,
        "ema_decay": 0.0,
        "auxiliary_loss": 0.3,
        "label_smoothing": 0.1,
        "region_loss": "lovasz",
        "region_loss_from": 0.25,
        "max_gradient_norm": 1.0,
        "encoder_rate": 0.5,
        "epochs": 7,
        "learning_rate": 1.0,
        "micro_batch_size": 2,
        "batch_size": 4,
    }
    varied = {"crop": (64, 96), "scales": (1.0, 2.0), "flip": False, "colour": 0.0}
    varied |= {"hue": 0.1, "blur": 1.5, "rotation": 5.0}
    names = {name: f"augment_{name}" for name in ("scales", "flip", "hue", "blur", "rotation")}
    names["colour"] = "augment_color"
    asked = {names.get(name, name): value for name, value in varied.items()}

    plan = open_plan(TrainSettings(network="fcn_pyramid", **data, **given, **asked))

    [stage] = plan.stages
    found = dataclasses.asdict(stage.recipe)
    augmentation = found.pop("augmentation")
    assert {name: found[name] for name in given} == given
    assert augmentation == varied
    # What is no number of a user's: what the recipe is, and the loss that it was published with.
    fixed = {"name", "optimizer", "bias_rate", "divisor", "stage_factors", "momentum"}
    assert found.keys() - given.keys() == fixed


def test_where_relative_paths_of_a_manifest_start_is_said(tmp_path: Path):
    """A truth that is not there is named whole, and where its path was taken to begin."""
    scenes(tmp_path, 1, 1)
    (tmp_path / "set.csv").write_text("image_uri,mask_uri\na.png,gone/truth.png\n")
    with pytest.raises(InputError, match=r"/gone/truth.png does not .*start at the current"):
        open_data_set(Storage(), Asked(f"file://{tmp_path}/set.csv", "train"))
