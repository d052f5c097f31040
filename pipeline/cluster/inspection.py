"""Inspect a labelled data set on Ray, before hours are spent on it."""

from collections.abc import Iterator, Mapping

import pyarrow as pa

from pipeline.cluster.tasks import in_tasks, own_errors
from pipeline.inputs.inspect import Chunk, Finding, Inspect

_SAMPLES_PER_CHUNK = 64


def inspect(look: Inspect, splits: Mapping[str, pa.Table]) -> Iterator[Finding]:
    """Look at every sample once, in Ray tasks.

    Args:
        look: What is looked at.
        splits: image_uri and mask_uri of the samples, by split; at least one sample.

    Raises:
        StoreError: The store does not answer.
    """
    chunks = [
        Chunk(
            split=split,
            image_uris=part["image_uri"].to_pylist(),
            mask_uris=part["mask_uri"].to_pylist(),
        )
        for split, table in splits.items()
        for part in (
            table.slice(first, _SAMPLES_PER_CHUNK)
            for first in range(0, table.num_rows, _SAMPLES_PER_CHUNK)
        )
    ]
    with own_errors():
        for row in in_tasks(chunks, look).iter_rows():
            yield from row["findings"]
