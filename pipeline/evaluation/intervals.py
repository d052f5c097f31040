"""How sure figures are: bootstrap intervals over images, and calibration; without Ray.

Efron, Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13: percentiles of the metric
over sets of images that are drawn from those there are, with replacement.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_REPLICATES = 1000
_AT_A_TIME = 50
_PERCENT = (2.5, 97.5)
_BINS = 10
_FEWEST = 2

Counts = NDArray[np.float64]


def mean_iu_interval(
    counts: Counts, groups: Sequence[str] | None = None
) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean IU; None where nothing can be told of it.

    So it is where no image has a labelled pixel, and where there is one image or one group: it
    would be drawn each time, to an interval without a width.

    Args:
        counts: By image: pixels of the truth, of the prediction, and in both, by class; of shape
            (images, 3, classes).
        groups: Of the images: whole groups are drawn, as images of one drive are alike. None draws
            images.
    """
    if groups is not None:
        counts = _summed(counts, groups)
    if len(counts) < _FEWEST or not counts[:, 0].any():
        return None
    number, flat = len(counts), counts.reshape(len(counts), -1)
    random, found = np.random.default_rng(0), []
    for _ in range(0, _REPLICATES, _AT_A_TIME):
        drawn = random.multinomial(number, np.full(number, 1 / number), _AT_A_TIME)
        found += [_mean_iu(one) for one in (drawn @ flat).reshape(-1, *counts.shape[1:])]
    least, most = np.nanpercentile(found, _PERCENT)
    return float(least), float(most)


def _summed(counts: Counts, groups: Sequence[str]) -> Counts:
    names, place = np.unique(np.asarray(groups), return_inverse=True)
    total = np.zeros((len(names), *counts.shape[1:]))
    np.add.at(total, place, counts)
    return total


def _mean_iu(counts: Counts) -> float:
    truth, predicted, hits = counts
    present = truth > 0
    if not present.any():
        return float("nan")
    return float((hits[present] / (truth + predicted - hits)[present]).mean())


def calibration_error(confidence: Counts, accuracy: Counts, pixels: Counts) -> float:
    """Return how far confidence is from accuracy, over images of about the same confidence.

    The expected calibration error (Naeini et al., "Obtaining Well Calibrated Probabilities", 2015)
    in ten bins, of images in place of pixels: masks keep no confidence of a pixel.

    Args:
        confidence: Mean of each image, 0 to 1.
        accuracy: Share of each image's labelled pixels that is right.
        pixels: Labelled pixels of each image, its weight.
    """
    known = ~np.isnan(confidence) & (pixels > 0)
    confidence, accuracy, pixels = confidence[known], accuracy[known], pixels[known]
    if not len(pixels):
        return float("nan")
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(bins, pixels * (accuracy - confidence), _BINS)
    return float(np.abs(gaps).sum() / pixels.sum())
