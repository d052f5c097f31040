"""The rate finder: steps at learning rates that grow, and what their losses say.

Smith, "Cyclical Learning Rates for Training Neural Networks" (2017), section 3.3: where the loss
falls fastest a rate is worth its steps, and behind its lowest point it is too high. Without torch:
the steps themselves are `rate_steps`.
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_STEPS = 100
# A loss of so many times the lowest so far tells that all higher rates are too high.
_TOO_MUCH = 4.0
_SMOOTHING = 0.9
# Of the first steps the smoothed loss is that of a few images.
_LEFT_OUT = 5
_COLUMNS = ("learning_rate", "loss", "smoothed_loss")


@dataclass(frozen=True)
class Tried:
    """Rates that were tried, in order, and the losses of their steps."""

    rates: Sequence[float]
    losses: Sequence[float]

    @property
    def smoothed(self) -> list[float]:
        """The running mean of the losses, corrected for its start (Kingma, Ba, "Adam", 2015)."""
        mean, found = 0.0, []
        for number, loss in enumerate(self.losses, start=1):
            mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
            found.append(mean / (1 - _SMOOTHING**number))
        return found

    @property
    def is_over(self) -> bool:
        """Whether higher rates need not be tried."""
        smoothed = self.smoothed
        return not math.isfinite(smoothed[-1]) or smoothed[-1] > _TOO_MUCH * min(smoothed)

    def to_csv(self) -> bytes:
        """Write a line for each step."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(_COLUMNS)
        rows.writerows(zip(self.rates, self.losses, self.smoothed, strict=True))
        return text.getvalue().encode()

    @classmethod
    def from_csv(cls, data: bytes) -> "Tried":
        """Read what `to_csv` has written."""
        rows = list(csv.DictReader(io.StringIO(data.decode())))
        return cls(*([float(row[name]) for row in rows] for name in _COLUMNS[:2]))

    def describe(self) -> str:
        """Say to a person which rate to take."""
        if not self.rates:
            return "no step had a pixel with a class: is the ground truth right, or crop too small?"
        smoothed = np.array(self.smoothed)
        lowest = int(np.where(np.isfinite(smoothed), smoothed, np.inf).argmin())
        tried = f"{len(self.rates)} rates tried, from {self.rates[0]:.2g} to {self.rates[-1]:.2g}"
        if lowest <= _LEFT_OUT:
            return f"{tried}: the loss falls at none of them; are the data and the weights right?"
        slopes = np.gradient(smoothed[: lowest + 1], np.log(self.rates[: lowest + 1]))
        steepest = _LEFT_OUT + int(slopes[_LEFT_OUT:].argmin())
        found = (
            f"{tried}: the loss falls fastest at {self.rates[steepest]:.2g} and is lowest at "
            f"{self.rates[lowest]:.2g}"
        )
        if steepest == len(smoothed) - 1:
            return (
                f"{found}, the last one, so that a higher one may be the right one\ntry again with "
                f"--learning-rate {self.rates[-1]:.2g}, and another run name"
            )
        return (
            f"{found}\ntrain with --learning-rate {self.rates[steepest]:.2g}, and another run name"
        )
