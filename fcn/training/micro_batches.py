"""Micro-batches: how a worker's images of a step are divided into what passes together."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch

from fcn.training.batch import Batch
from fcn.training.distributed import sum_over_workers, world_size
from fcn.training.recipes import Recipe


class MicroBatches:
    """Divides batches, alike on all workers; into smaller parts once memory was short."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        """Start with what the recipe says.

        Args:
            recipe: Its `micro_batch_size` and `batch_size` apply.
            device: Where workers ask each other.
        """
        self._recipe = recipe
        self._device = device
        self._size = recipe.micro_batch_size

    @property
    def size(self) -> int | None:
        """Images that pass together at most; None: all that a worker has."""
        return self._size

    def divide(self, batch: Batch) -> Iterator[Batch]:
        """Divide a worker's share of a step; sizes differ by one at most.

        Args:
            batch: The share.
        """
        ends = np.linspace(0, len(batch.images), self._num_passes(batch) + 1).astype(int)
        for start, end in pairwise(ends.tolist()):
            yield Batch(batch.images[start:end], batch.truths[start:end], batch.places[start:end])

    def halve(self, batch: Batch) -> bool:
        """Let half as many images pass together from now on.

        Args:
            batch: For which memory was short.

        Returns:
            Whether that can be done: one image can't be halved.
        """
        largest = max(len(part.images) for part in self.divide(batch))
        if largest == 1:
            return False
        self._size = largest // 2
        return True

    def _num_passes(self, batch: Batch) -> int:
        """Count the passes of a step: the same on all workers, as batch norms wait for each other.

        A worker may have an image less than others; then it passes them in larger parts.
        """
        largest, least = self._shares(len(batch.images))
        pairs = zip(batch.images, batch.truths, strict=True)
        sizes = {(image.shape, truth.shape) for image, truth in pairs}
        size = self._size or largest
        if self._on_any_worker(len(sizes) > 1):
            size = 1
        return min(-(-largest // size), least)

    def _shares(self, number: int) -> tuple[int, int]:
        """Return how many images of a step workers have: the most, and the fewest."""
        if world_size() == 1:
            return number, number
        batch_size, workers = self._recipe.batch_size, world_size()
        return -(-batch_size // workers), batch_size // workers

    def _on_any_worker(self, what: bool) -> bool:  # noqa: FBT001 - the one thing that is asked
        """Return whether it is so on any worker: all pass as often, as batch norms wait."""
        if world_size() == 1:
            # Nobody to ask, and asking would wait for the device.
            return what
        return bool(sum_over_workers(torch.tensor(int(what), device=self._device)).item())
