"""A stand-in for the network that is surer of some images than of others."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tests.disk_runs import FakePrediction, RedPredictor, predict_red


def confidence_of(image: NDArray[np.uint8]) -> float:
    """Return how sure it is of an image: the more, the brighter its first pixel is."""
    return float(image[0, 0].sum()) / 1024


class UnsurePredictor(RedPredictor):
    """Is as sure of an image as `confidence_of` says."""

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[FakePrediction | None]:
        """Predict as `RedPredictor` does."""
        return [replace(predict_red(one), mean_confidence=confidence_of(one)) for one in images]
