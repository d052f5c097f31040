"""Few steps give a bad network: a large batch says so before the training, the time after it."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.settings.train import TrainSettings
from pipeline.training.plan import TrainingPlan, open_plan
from pipeline.training.steps import done_too_few, planned_too_few
from tests.jobs.training_product import scenes


def _plan(folder: Path, **fields: Any) -> TrainingPlan:
    """Plan to train on 64 images; the recipe has 100 epochs of batches of 8: 800 steps."""
    data = folder / "data"
    if not data.exists():
        scenes(data, 64, 1, (8, 8))
    return open_plan(TrainSettings(data=str(data), output=str(folder), run_name="run", **fields))


def test_a_large_batch_says_how_many_epochs_have_as_many_steps(tmp_path: Path):
    """At less than half of the recipe's steps, and not where these are not the recipe's."""
    said = planned_too_few(_plan(tmp_path, batch_size=32))
    assert said is not None
    assert "batch_size=32 makes 200 steps of 100 epochs, where 8, the recipe's, makes 800" in said
    assert "raise epochs, to 400 for as many" in said

    assert planned_too_few(_plan(tmp_path, batch_size=16)) is None
    assert planned_too_few(_plan(tmp_path, batch_size=32, max_train_minutes=9.0)) is None
    assert planned_too_few(_plan(tmp_path, batch_size=32, find_rate=True)) is None


def _line(epoch: float, seconds: float) -> dict[str, Any]:
    return {"epoch": epoch, "step": round(8 * epoch), "seconds": seconds}


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (_line(49.5, 60.001), "max_train_minutes=1 was enough for 396 steps, 49.5 epochs of the"),
        (_line(50.0, 60.001), None),
        # Something else has ended it, such as early_stopping_evaluations.
        (_line(3.0, 59.0), None),
    ],
)
def test_a_time_limit_says_what_has_become_of_the_plan(
    last: dict[str, Any], said: str | None, tmp_path: Path
):
    """Where the time, and nothing else, ends a training at less than half of its epochs."""
    found = done_too_few(_plan(tmp_path, max_train_minutes=1.0), [_line(1.0, 2.0), last])
    assert (found is None) == (said is None)
    assert said is None or said in str(found)
    assert done_too_few(_plan(tmp_path), [last]) is None
