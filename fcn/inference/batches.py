"""Which images go through the network together: those of one size, so many at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Batching:
    """How images of one size are shared out.

    Attributes:
        size: Images in a batch, at most.
        even: Whether batches of one size differ by one image at most. A GPU looks for its kernels
            anew with every number of images: of 21 images, 7, 7 and 7 cost one search, 8, 8 and 5
            cost two.
        max_filled_pixels: Images of up to so many pixels have their batches filled up with copies,
            whose labels are thrown away: `torch.compile` makes one graph of each number of images.
            0 fills none.
    """

    size: int
    even: bool = False
    max_filled_pixels: int = 0

    def share_out(self, images: Sequence[NDArray[np.uint8]]) -> Iterator[list[int]]:
        """Return the indices of the images of each batch.

        Args:
            images: Of any sizes.
        """
        by_size: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(images):
            by_size.setdefault(image.shape, []).append(index)
        for indices in by_size.values():
            for first, end in pairwise(self._ends(len(indices))):
                yield indices[first:end]

    def _ends(self, number: int) -> list[int]:
        """Cut so many images of one size; returns where batches begin and end."""
        batches = -(-number // self.size)
        if self.even:
            return [number * batch // batches for batch in range(batches + 1)]
        return [*range(0, number, self.size), number]

    def filled(self, batch: Sequence[NDArray[np.uint8]]) -> Sequence[NDArray[np.uint8]]:
        """Return a batch at its full size, if it is to be filled.

        Args:
            batch: Images of one size.
        """
        height, width = batch[0].shape[:2]
        if height * width > self.max_filled_pixels:
            return batch
        return [*batch, *[batch[-1]] * (self.size - len(batch))]
