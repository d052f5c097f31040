"""Boundary IU: how well masks agree near the outlines of the classes.

Cheng et al., "Boundary IoU" (CVPR 2021), section 4: the IU of those pixels of a class that lie
within a distance of its outline, in the ground truth and in the prediction. Large things are nearly
all inside, so that their IU hardly tells how their outlines fit. NumPy only, as `fcn.metrics`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fcn.weights.record import IGNORE_INDEX

# Of the diagonal of the image, as the paper has it.
_DISTANCE = 0.02

Mask = NDArray[np.uint8]
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class BoundaryCounts:
    """Pixels near outlines by class, int64 of shape (num_classes,); they add up over images.

    Attributes:
        truth: Of the ground truth.
        predicted: Of the prediction.
        hits: In both.
    """

    truth: Counts
    predicted: Counts
    hits: Counts

    @staticmethod
    def of(truth: Mask, prediction: Mask, num_classes: int) -> "BoundaryCounts":
        """Count the pixels of an image.

        Args:
            truth: Class indices of shape (H, W), `IGNORE_INDEX` where there is none.
            prediction: Class indices of the same shape; without a class where the truth has none.
            num_classes: Background included.
        """
        shown = np.where(truth == IGNORE_INDEX, truth, prediction)
        near_truth, near_shown = near_outlines(truth), near_outlines(shown)

        def count(labels: Mask, where: NDArray[np.bool_]) -> Counts:
            return np.bincount(labels[where], minlength=256)[:num_classes].astype(np.int64)

        both = near_truth & near_shown & (truth == shown)
        return BoundaryCounts(
            count(truth, near_truth), count(shown, near_shown), count(truth, both)
        )

    def __add__(self, other: "BoundaryCounts") -> "BoundaryCounts":
        """Return the counts of the images of both."""
        return BoundaryCounts(
            self.truth + other.truth, self.predicted + other.predicted, self.hits + other.hits
        )

    @property
    def class_iu(self) -> NDArray[np.float64]:
        """Boundary IU by class, NaN for classes without a pixel in the truth."""
        union = self.truth + self.predicted - self.hits
        shares = np.full(len(union), np.nan)
        present = self.truth > 0
        shares[present] = self.hits[present] / union[present]
        return shares


def near_outlines(labels: Mask) -> NDArray[np.bool_]:
    """Find the pixels from which another label, or the border, is within the distance.

    Args:
        labels: Of shape (H, W).
    """
    height, width = labels.shape
    reach = max(1, round(_DISTANCE * math.hypot(height, width)))
    # Beyond the border is no class either.
    framed = np.pad(labels, reach, constant_values=IGNORE_INDEX)
    least, largest = (_over_squares(one, framed, reach) for one in (np.minimum, np.maximum))
    return np.not_equal(least, largest)


def _over_squares(of_two: Callable[..., Mask], labels: Mask, reach: int) -> Mask:
    """Return the least or the largest label of the square around every pixel within the frame."""
    for _ in range(2):
        labels = _over_rows(of_two, labels, 2 * reach + 1).T
    return labels


def _over_rows(of_two: Callable[..., Mask], labels: Mask, number: int) -> Mask:
    done = 1
    while done < number:
        # Twice as many rows at a time, so that a large reach costs little more than a small one.
        step = min(done, number - done)
        labels = of_two(labels[:-step], labels[step:])
        done += step
    return labels
