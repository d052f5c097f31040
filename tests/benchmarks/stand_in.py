"""A network that costs a fixed time and no CPU: what a fast device looks like to the pipeline."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.labelling.segment import Placement

if TYPE_CHECKING:  # importing this loads torch
    from fcn.inference.predictor import Prediction, Predictor

_NUM_CLASSES = 21
_BANDS = (0, 3, 7, 14)


class StandIn:
    """Sleeps for every image, answers with bands of four classes, and writes down when it slept.

    It has no lock of its own: calls that overlap would show in its log.
    """

    def __init__(self, seconds_per_image: float, log: str) -> None:
        """Set the speed.

        Args:
            seconds_per_image: How long an image takes.
            log: File that gets a line `start end`, in seconds, for every call.
        """
        self._seconds_per_image = seconds_per_image
        self._log = log
        self._known: dict[tuple[int, ...], Prediction] = {}
        self.device_seconds = 0.0

    num_backoffs = 0

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list["Prediction | None"]:
        """As `fcn.inference.predictor.Predictor.predict`."""
        start = time.monotonic()
        time.sleep(self._seconds_per_image * len(images))
        end = time.monotonic()
        self.device_seconds += end - start
        with open(self._log, "a", encoding="ascii") as file:
            file.write(f"{start:.6f} {end:.6f}\n")
        return [self._prediction(image.shape[:2]) for image in images]

    def _prediction(self, size: tuple[int, ...]) -> "Prediction":
        if size not in self._known:
            self._known[size] = _bands(size)
        return self._known[size]


def open_stand_in(seconds_per_image: float, log: str, placement: Placement) -> "Predictor":
    """Load a stand-in in the replica.

    Args:
        seconds_per_image: How long an image takes.
        log: As `StandIn` says.
        placement: Not needed: it runs nowhere.
    """
    # A replica imports torch while it loads, never while it predicts.
    import fcn.inference.predictor  # noqa: F401, PLC0415

    stand_in: Predictor = StandIn(seconds_per_image, log)  # type: ignore[assignment]  # as it is used
    return stand_in


def busy_share(log: str) -> tuple[float, float]:
    """Read how busy a stand-in was.

    Returns:
        Seconds in which at least one call was at work, and seconds from the first call's start
        to the last one's end.
    """
    calls = np.loadtxt(log, ndmin=2)
    calls = calls[calls[:, 0].argsort()]
    # Each call counts from where the earlier ones have ended, so that no second counts twice.
    earlier_end = np.concatenate([[0.0], np.maximum.accumulate(calls[:-1, 1])])
    busy = np.clip(calls[:, 1] - np.maximum(calls[:, 0], earlier_end), 0, None)
    return float(busy.sum()), float(calls[:, 1].max() - calls[0, 0])


def _bands(size: tuple[int, ...]) -> "Prediction":
    from fcn.inference.predictor import Prediction  # noqa: PLC0415

    mask = np.zeros(size, np.uint8)
    for band, index in zip(np.array_split(mask, len(_BANDS)), _BANDS, strict=True):
        band[...] = index
    pixels = np.bincount(mask.ravel(), minlength=_NUM_CLASSES)
    confidence = np.where(pixels > 0, 0.5, np.nan)
    return Prediction(mask, pixels, confidence, mean_confidence=0.5)
