"""Doubt: whether what a whole shard has met is true of its images, or of the store.

A row says what is true of its image alone. So where none of a shard's images could be read, others
are asked for: images of other shards, and the listing. If they fail alike, the run ends, to be
gone on with, and nothing is committed.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ErrorCode, StoreError
from pipeline.labelling.schema import ImageRow, ShardTask
from pipeline.store.cells import read_image
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage

# What a store says of an object, and might say of any.
_DOUBTFUL = {
    ErrorCode.NOT_FOUND,
    ErrorCode.FORBIDDEN,
    ErrorCode.TIMEOUT,
    ErrorCode.THROTTLED,
}
# What the plan says, before anything is asked for.
_OF_THE_PLAN = {ErrorCode.NAME_TOO_LONG, ErrorCode.NAME_NOT_UTF8, ErrorCode.CORRUPT}
_MAX_ASKED = 3
_T = TypeVar("_T")


def refuse_a_store_that_fails(
    storage: Storage, task: ShardTask, images: Sequence[ImageRow], max_bytes: int
) -> None:
    """End the run where none of a shard's images was read and the store answers for no other.

    Args:
        storage: Of plan and images.
        task: Where the plan of the shard is.
        images: The images of the shard, fetched.
        max_bytes: Of a larger image nothing is read.

    Raises:
        StoreError: It is the store that fails.
    """
    asked = [image for image in images if _was_asked_for(image)]
    failed = [image for image in asked if image["error_code"] in _DOUBTFUL]
    if not failed or len(failed) < len(asked):
        return
    if not any(_is_new(image) for image in failed):
        # Of these it is known, and an input may have any number of them: the listing decides.
        storage.for_input().lists(_object(failed[0]))
        return
    if _are_gone(storage, failed) or _others_answer(storage, task, max_bytes, _object(failed[0])):
        return
    first = failed[0]
    raise StoreError(
        ErrorCode(first["error_code"] or ""),
        f"none of the {len(failed)} images of shard {task['shard']} could be read, nor any other "
        f"that was tried: {first['error_message']}; check credentials, rights and endpoint",
    )


def _was_asked_for(image: ImageRow) -> bool:
    # An image without a version was not there to begin with; how large a tar's is says the plan.
    in_tar = image.get("image_offset") is not None
    too_large = in_tar and image["error_code"] == ErrorCode.TOO_MANY_BYTES
    return image["etag"] is not None and not too_large and image["error_code"] not in _OF_THE_PLAN


def _object(image: ImageRow) -> str:
    """Return what a listing has of an image: itself, or the tar that it lies in."""
    return Extent.of_image(image).uri


def _is_new(image: ImageRow) -> bool:
    return (image.get("attempts") or 1) == 1


def _are_gone(storage: Storage, failed: Sequence[ImageRow]) -> bool:
    """Return whether they were deleted since they were planned: a listing no longer has them."""
    some = failed[:_MAX_ASKED]
    return all(image["error_code"] == ErrorCode.NOT_FOUND for image in some) and not any(
        storage.for_input().lists(_object(image)) for image in some
    )


def _others_answer(storage: Storage, task: ShardTask, max_bytes: int, uri: str) -> bool:
    """Ask for images of other shards; where the plan's file has none, for the listing."""
    others = list(_others(storage, task))
    if not others:
        storage.for_input().lists(uri)
        return True
    return any(_answers(storage, image, max_bytes) for image in others)


def _others(storage: Storage, task: ShardTask) -> Iterator[ImageRow]:
    """Return the first images of a few other shards, from all over the plan."""
    folder, _, own = task["plan_uri"].rpartition("/")
    # Not of this file alone: it may hold a prefix that nobody may read, of many shards.
    files = _spread([name for name in storage.children(folder) if name != own], _MAX_ASKED - 1)
    for name in (own, *files):
        file = pq.ParquetFile(pa.BufferReader(storage.read(f"{folder}/{name}")), pre_buffer=False)
        groups = [
            group
            for group in range(file.num_row_groups)
            if (name, group) != (own, task["row_group"])
        ]
        for group in _spread(groups, 1 if files else _MAX_ASKED):
            first: ImageRow = (
                file.read_row_group(group, use_threads=False).slice(0, 1).to_pylist()[0]
            )
            if first["etag"] is not None and first.get("error_code") is None:
                yield first


def _spread(candidates: Sequence[_T], number: int) -> Sequence[_T]:
    """Return so many of them, evenly spread, the last one included."""
    return candidates[:: -max(1, len(candidates) // number)][:number]


def _answers(storage: Storage, image: ImageRow, max_bytes: int) -> bool:
    try:
        read_image(storage.for_input(), Extent.of_image(image), image["etag"], max_bytes)
    except StoreError as error:
        return error.code not in _DOUBTFUL
    return True
