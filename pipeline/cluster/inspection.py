"""Inspect a labelled data set on Ray, before hours are spent on it."""

from collections.abc import Iterator, Mapping

import pyarrow as pa

from pipeline.cluster.ray_errors import own_errors
from pipeline.cluster.tasks import in_tasks, wait_for_a_task
from pipeline.inputs.inspect import Chunk, Finding, Inspect
from pipeline.settings.shared import JobFields

_SAMPLES_PER_CHUNK = 64


def inspect(
    look: Inspect, splits: Mapping[str, pa.Table], settings: JobFields
) -> Iterator[Finding]:
    """Look at every sample once, in Ray tasks.

    Args:
        look: What is looked at.
        splits: The samples by split, as `as_table` lays them out; at least one.
        settings: They say how long to wait.

    Raises:
        StoreError: The store does not answer.
        WaitedTooLong: A cluster has no room for it, or it does not get on.
    """
    wait_for_a_task(settings)
    chunks = [
        Chunk(
            split=split,
            image_uris=part["image_uri"].to_pylist(),
            mask_uris=part["mask_uri"].to_pylist(),
            mask_offsets=part["mask_offset"].to_pylist(),
            mask_bytes=part["mask_bytes"].to_pylist(),
            image_offsets=part["image_offset"].to_pylist(),
            image_bytes=part["image_bytes"].to_pylist(),
            image_copies=part["image_copy"].to_pylist(),
        )
        for split, table in splits.items()
        for part in (
            table.slice(first, _SAMPLES_PER_CHUNK)
            for first in range(0, table.num_rows, _SAMPLES_PER_CHUNK)
        )
    ]
    with own_errors():
        for row in in_tasks(chunks, look, settings.max_wait_minutes).iter_rows():
            yield from row["findings"]
