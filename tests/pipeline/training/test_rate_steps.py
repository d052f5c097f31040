"""The steps of the rate finder: which of them are judged."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fcn.training.batch import Batch
from pipeline.training import rate_steps
from pipeline.training.rate_range import NUM_STEPS, Tried

_ROAD, _NO_CLASS = 0, 255


class _Trainer:
    """Has a loss of 2 where a pixel has a class, as a trainer's is 0 where none has."""

    device = torch.device("cpu")

    def step(self, batch: Batch, step: int, progress: float) -> torch.Tensor:
        return torch.tensor(0.0 if (batch.truths[0] == _NO_CLASS).all() else 2.0)

    def rate(self, step: int, progress: float) -> float:
        return 10.0**step


def _tried(monkeypatch: pytest.MonkeyPatch, values: list[int]) -> Tried:
    image = np.zeros((2, 2, 3), np.uint8)
    batches = [Batch([image], [np.full((2, 2), one, np.uint8)], [0]) for one in values]
    monkeypatch.setattr(rate_steps, "steps", lambda *_: iter(batches))
    monkeypatch.setattr(rate_steps, "loader", lambda *_: None)
    stage = SimpleNamespace(recipe=SimpleNamespace(batch_size=1))
    plan: Any = SimpleNamespace(stages=[stage], train=None)
    written: list[bytes] = []
    run: Any = SimpleNamespace(write_rates=written.append)
    watch: Any = SimpleNamespace(progress=lambda *_: None)
    trainer: Any = _Trainer()
    rate_steps.try_rates(plan, trainer, run, watch)
    return Tried.from_csv(written[0])


def test_a_step_without_a_class_is_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its loss is 0, beside which all others would have exploded; the rates go on after it."""
    tried = _tried(monkeypatch, [_NO_CLASS, _ROAD, _NO_CLASS, _ROAD, _ROAD])
    assert list(tried.losses) == [2.0, 2.0, 2.0]
    assert list(tried.rates) == pytest.approx([1e1, 1e3, 1e4])


def test_ground_truth_without_a_class_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crops may miss the few pixels that have one: there is no rate to take."""
    tried = _tried(monkeypatch, [_NO_CLASS] * NUM_STEPS)
    assert "no step had a pixel with a class" in tried.describe()
