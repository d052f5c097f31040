"""Class statistics: exact pixel counts that add up over images, shards and machines."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

# What masks and tables call the pixels that have no class.
IGNORED = "ignore"


def count_classes(mask: NDArray[np.uint8]) -> dict[int, int]:
    """Count the pixels of every class index that a mask holds.

    Args:
        mask: Class indices, uint8 of shape (H, W); 255 is the ignore index.

    Returns:
        Class index to its number of pixels, without absent classes, in order of the index.
    """
    counts = np.bincount(mask.ravel(), minlength=256)
    return {int(index): int(counts[index]) for index in np.flatnonzero(counts)}


class ClassTotals:
    """Sums over any number of images: pixels per class and images in which the class appears.

    `confidence` sums the confidences of the pixels of each class.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.pixels: Counter[int] = Counter()
        self.images: Counter[int] = Counter()
        self.confidence: dict[int, float] = {}

    def add(self, statistics: pa.Table) -> None:
        """Add any number of images.

        Args:
            statistics: Columns of `schema.CLASS_STATISTICS`: one row per image and class.
        """
        weighted = pc.multiply(
            statistics["mean_confidence"], statistics["pixel_count"].cast(pa.float64(), safe=False)
        )
        sums = (
            statistics.append_column("confidence", weighted)
            .group_by("class_id", use_threads=False)
            .aggregate([("pixel_count", "sum"), ("image_id", "count"), ("confidence", "sum")])
        )
        for row in sums.to_pylist():
            self.pixels[row["class_id"]] += row["pixel_count_sum"]
            self.images[row["class_id"]] += row["image_id_count"]
            if (confidence := row["confidence_sum"]) is not None:
                known = self.confidence.get(row["class_id"], 0.0)
                self.confidence[row["class_id"]] = known + confidence

    def mean_confidence(self, class_id: int) -> float | None:
        """Return the mean confidence of a class over its pixels; None without any."""
        if class_id not in self.confidence:
            return None
        return self.confidence[class_id] / self.pixels[class_id]
