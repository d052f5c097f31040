"""Several seeds: each is a run of its own, and their figures are laid out together."""

import dataclasses
from pathlib import Path

import pytest
from pydantic import ValidationError

from fcn.weights.classes import ClassLabel
from fcn.weights.record import Checkpoint
from pipeline.settings.train import TrainSettings
from pipeline.training.seeds import describe_seeds, runs_of


def _settings(tmp_path: Path, **fields: object) -> TrainSettings:
    places = {"data": f"{tmp_path}/data", "output": f"{tmp_path}/out", "run_name": "try"}
    return TrainSettings(**places | fields)


def test_each_seed_is_a_run_of_its_own(tmp_path: Path):
    """With the seed in its name, and all else as it was; one seed keeps the name."""
    settings = _settings(tmp_path, seed=5, num_seeds=3, width=8)

    runs = runs_of(settings)

    assert [(one.seed, one.run_name) for one in runs] == [(5, "try-5"), (6, "try-6"), (7, "try-7")]
    assert {one.width for one in runs} == {8}
    assert all("width" in one.model_fields_set for one in runs)
    one = _settings(tmp_path, seed=5)
    assert runs_of(one) == [one]


def test_rates_are_not_tried_with_several_seeds(tmp_path: Path):
    """There would be nothing to lay out."""
    with pytest.raises(ValidationError, match="num_seeds compares nothing"):
        _settings(tmp_path, find_rate=True, num_seeds=2)


def _record(mean_iu: float, car: float | None) -> Checkpoint:
    classes = (ClassLabel("road", (0, 0, 0)), ClassLabel("car", (1, 1, 1)))
    metrics = {"mean_iu": mean_iu, "class_iu": {"road": 0.5, "car": car}}
    return dataclasses.replace(
        Checkpoint("fcn_all_skips", classes), provenance={"metrics": metrics}
    )


def test_figures_have_mean_spread_and_ends():
    """Of 0.5, 0.6 and 0.7 they are 0.6, 0.1, 0.5 and 0.7; a class is absent where no val has it."""
    lines = describe_seeds([_record(0.5, None), _record(0.7, None), _record(0.6, None)])

    rows = {line[2:26].strip(): line[26:].split() for line in lines.splitlines()[1:]}
    assert rows["mean IU"] == ["0.6000", "0.1000", "0.5000", "0.7000"]
    assert rows["IU of road"] == ["0.5000", "0.0000", "0.5000", "0.5000"]
    assert rows["IU of car"] == rows["pixel accuracy"] == ["absent"]


def test_figures_of_one_training_have_no_spread():
    """Where one of several was trained before val was there, nothing is made up."""
    assert "0.5000        -   0.5000   0.5000" in describe_seeds([_record(0.5, 0.25)])
