"""Class statistics: exact pixel counts that add up over images, shards and machines."""

from collections import Counter

import numpy as np
import pyarrow as pa
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
    """Sums over any number of images: pixels per class and images in which the class appears."""

    def __init__(self) -> None:
        """Start at zero."""
        self.pixels: Counter[int] = Counter()
        self.images: Counter[int] = Counter()

    def add(self, statistics: pa.Table) -> None:
        """Add any number of images.

        Args:
            statistics: Columns of `schema.CLASS_STATISTICS`: one row per image and class.
        """
        sums = statistics.group_by("class_id", use_threads=False).aggregate(
            [("pixel_count", "sum"), ("image_id", "count")]
        )
        for row in sums.to_pylist():
            self.pixels[row["class_id"]] += row["pixel_count_sum"]
            self.images[row["class_id"]] += row["image_id_count"]
