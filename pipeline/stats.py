"""Class statistics: exact pixel counts that add up over images, shards and machines."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.schema import ClassPixels


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

    def add(self, classes: Iterable[ClassPixels]) -> None:
        """Add one image.

        Args:
            classes: The image's classes, each once.
        """
        for entry in classes:
            self.pixels[entry["class_id"]] += entry["pixel_count"]
            self.images[entry["class_id"]] += 1
