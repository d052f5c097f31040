"""The rate finder's judgement of losses at growing rates."""

import dataclasses
import math

import numpy as np
import pytest

from fcn.training.recipes import RECIPES
from pipeline.training.rate_range import NUM_STEPS, Tried

_RATES = np.logspace(-6, -1, NUM_STEPS).tolist()


def _losses(at: float, end: float) -> list[float]:
    """Fall around one rate, and rise from another one on."""
    found = []
    for rate in _RATES:
        fallen = 2 - 1.5 / (1 + (at / rate) ** 2)
        found.append(fallen + max(0.0, math.log(rate / end)) ** 2)
    return found


def test_the_rate_is_where_the_loss_falls_fastest() -> None:
    """Smoothing comes late by some steps; the lowest point is further on."""
    tried = Tried(_RATES, _losses(1e-4, 1e-2))
    text = tried.describe()
    steepest, lowest = (float(text.split(" at ")[number].split()[0]) for number in (1, 2))
    assert 5e-5 < steepest < 5e-4
    assert steepest < lowest < 5e-2
    assert f"train with --learning-rate {steepest:.2g}" in text


@pytest.mark.parametrize(
    "losses", [[2.0 + 0.01 * step for step in range(NUM_STEPS)], [math.nan], [math.inf]]
)
def test_a_loss_that_does_not_fall_is_said(losses: list[float]) -> None:
    """There is no rate to take, also where the first loss is no number."""
    text = Tried(_RATES[: len(losses)], losses).describe()
    assert "the loss falls at none of them" in text


def test_a_loss_that_falls_to_the_end_says_nothing_of_the_best_rate() -> None:
    """Higher rates are to be tried, and none is named to train with."""
    losses = [2.0 - (step / NUM_STEPS) ** 2 for step in range(NUM_STEPS)]
    text = Tried(_RATES, losses).describe()
    assert "a higher one may be the right one" in text
    assert "try again with --learning-rate 0.1" in text
    assert "train with" not in text


@pytest.mark.parametrize("last", [math.nan, math.inf, 90.0])
def test_it_ends_where_the_loss_explodes(last: float) -> None:
    """No number, or several times the lowest; what was seen before is judged."""
    losses = _losses(1e-4, 1e-2)[:70]
    assert not Tried(_RATES[:70], losses).is_over
    tried = Tried(_RATES[:71], [*losses, last])
    assert tried.is_over
    assert "train with --learning-rate" in tried.describe()


def test_what_is_written_is_read_again() -> None:
    """To the last digit, with the smoothed losses for people."""
    tried = Tried(_RATES[:9], _losses(1e-4, 1e-2)[:9])
    data = tried.to_csv()
    assert Tried.from_csv(data) == tried
    assert data.decode().splitlines()[0] == "learning_rate,loss,smoothed_loss"


def test_the_rates_are_around_the_recipes() -> None:
    """From a thousandth to a hundred times, evenly in the logarithm, whatever the step."""
    recipe = dataclasses.replace(RECIPES["modern"], schedule="range")
    rates = [recipe.rate(step, step / 10) for step in range(11)]
    assert rates[0] == pytest.approx(1e-3 * recipe.learning_rate)
    assert rates[-1] == pytest.approx(1e2 * recipe.learning_rate)
    assert np.diff(np.log(rates)) == pytest.approx(np.log(1e5) / 10)
