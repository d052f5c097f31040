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


# A confidence of 1 in whole numbers: small enough that those of 500 of the largest images add up
# within 64 bits, whatever the order.
CONFIDENCE_UNITS = 1 << 20


class ClassTotals:
    """Sums over any number of images: pixels per class and images in which the class appears.

    `confidence` sums the confidences of the pixels of each class, in `CONFIDENCE_UNITS`.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.pixels: Counter[int] = Counter()
        self.images: Counter[int] = Counter()
        self.confidence: Counter[int] = Counter()

    def add(self, statistics: pa.Table) -> None:
        """Add any number of images.

        Args:
            statistics: Columns of `schema.CLASS_STATISTICS`: one row per image and class.
        """
        units = pc.round(pc.multiply(statistics["mean_confidence"], float(CONFIDENCE_UNITS)))
        weighted = pc.multiply(units.cast(pa.int64()), statistics["pixel_count"])
        sums = (
            statistics.append_column("confidence", weighted)
            .group_by("class_id", use_threads=False)
            .aggregate([("pixel_count", "sum"), ("image_id", "count"), ("confidence", "sum")])
        )
        for row in sums.to_pylist():
            self.pixels[row["class_id"]] += row["pixel_count_sum"]
            self.images[row["class_id"]] += row["image_id_count"]
            if row["confidence_sum"] is not None:
                self.confidence[row["class_id"]] += row["confidence_sum"]
