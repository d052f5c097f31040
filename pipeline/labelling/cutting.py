"""Cutting: images in order become shards, each of which is committed as one."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa

from pipeline.labelling.schema import PLAN


class Cutter:
    """Numbers the shards of images that come in order."""

    def __init__(self, max_images: int, max_bytes: int) -> None:
        """Start with shard 0.

        Args:
            max_images: In a shard.
            max_bytes: In a shard of several images.
        """
        self._max_images = max_images
        self._max_bytes = max_bytes
        self._shard = self._num_images = self._num_bytes = 0

    @property
    def num_shards(self) -> int:
        """Number of shards so far."""
        return self._shard + 1 if self._num_images else 0

    def cut(self, sizes: Sequence[int | None]) -> list[int]:
        """Return each image's shard.

        Args:
            sizes: In bytes; None where an image could not be looked up.
        """
        return [self._place(size or 0) for size in sizes]

    def numbered(self, images: pa.Table) -> pa.Table:
        """Add the column `shard`, in front."""
        shards = pa.array(self.cut(images["num_bytes"].to_pylist()), pa.int32())
        return images.add_column(0, PLAN.field("shard"), shards)

    def _place(self, size: int) -> int:
        full = self._num_images == self._max_images or self._num_bytes + size > self._max_bytes
        if self._num_images and full:
            self._shard += 1
            self._num_images = self._num_bytes = 0
        self._num_images += 1
        self._num_bytes += size
        return self._shard


def by_shard(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Split tables into one per shard.

    Args:
        tables: With the column `shard`, in its order; a shard may go on in the next table.
    """
    begun: list[pa.Table] = []
    for table in tables:
        shards = table["shard"].to_numpy()
        borders = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist(), len(shards)]
        for start, end in pairwise(borders):
            part = table.slice(start, end - start)
            if begun and begun[0]["shard"][0] != part["shard"][0]:
                yield pa.concat_tables(begun)
                begun = []
            begun.append(part)
    if begun:
        yield pa.concat_tables(begun)
