"""Doubt: whether what a whole shard has met is true of its images, or of the store.

A row says what is true of its image alone. So where none of a shard's images could be read, others
are asked for: images of other shards, and the listing. If they fail alike, the run ends, to be
resumed, and nothing is committed.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import ErrorCode, Scope, StoreError
from pipeline.labelling.schema import ImageRow, ShardTask
from pipeline.store.cells import read_image
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage
from pipeline.store.uri import as_folder

# What a store says of an object, and might say of any.
_DOUBTFUL = {
    ErrorCode.NOT_FOUND,
    ErrorCode.FORBIDDEN,
    ErrorCode.TIMEOUT,
    ErrorCode.THROTTLED,
}
# Such an answer comes at once, and many may fail alike that are not all, as below a prefix with
# rights of its own. Silence costs minutes each time.
_QUICK = {ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN}
# What the plan says, before anything is asked for.
_OF_THE_PLAN = {ErrorCode.NAME_TOO_LONG, ErrorCode.NAME_NOT_UTF8, ErrorCode.CORRUPT}
_MAX_ASKED = 3
_MAX_ASKED_QUICK = 40
_MAX_FILES = 8
_T = TypeVar("_T")


def refuse_a_store_that_fails(
    storage: Storage,
    task: ShardTask,
    images: Sequence[ImageRow],
    max_bytes: int,
    input_uri: str | None = None,
) -> None:
    """End the run where none of a shard's images was read and the store answers for no other.

    Args:
        storage: Of plan and images.
        task: Where the plan of the shard is.
        images: The images of the shard, fetched.
        max_bytes: Of a larger image nothing is read.
        input_uri: What the run labels; None is not asked for.

    Raises:
        StoreError: It is the store that fails, or the input as a whole is gone.
    """
    asked = [image for image in images if _was_asked_for(image)]
    failed = [image for image in asked if image["error_code"] in _DOUBTFUL]
    if not failed or len(failed) < len(asked):
        return
    if not any(_is_new(image) for image in failed):
        # Of these it is known, and an input may have any number of them: the listing decides.
        storage.for_input().lists(_object(failed[0]))
        return
    first = failed[0]
    if input_uri is not None and _object(first).startswith(as_folder(input_uri)):
        _refuse_a_folder_that_is_gone(storage, input_uri)
    number = _MAX_ASKED_QUICK if first["error_code"] in _QUICK else _MAX_ASKED
    others = list(islice(_others(storage, task, number), number))
    if _are_gone(storage, failed) or _any_answers(storage, others, max_bytes, _object(first)):
        return
    raise StoreError(
        ErrorCode(first["error_code"] or ""),
        f"none of the {len(failed)} images of shard {task['shard']} could be read, nor any of "
        f"{len(others)} others of the run: {first['error_message']}; check credentials, rights and "
        "endpoint",
    )


def another_answers(storage: Storage, uri: str, images: Sequence[ImageRow], max_bytes: int) -> bool:
    """Return whether the store gives another image of a shard, where it has failed for one.

    Args:
        storage: Of the images.
        uri: Of the object that it has failed for.
        images: Of the shard.
        max_bytes: Of a larger image nothing is read.
    """
    others = (one for one in images if _can_be_asked_for(one) and _object(one) != uri)
    return any(_answers(storage, one, max_bytes) for one in islice(others, 1))


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


def _refuse_a_folder_that_is_gone(storage: Storage, uri: str) -> None:
    """Refuse a folder that a disk, or a share, does not have any more."""
    name = uri.rstrip("/")
    if name.startswith("file://") and not storage.for_input().lists(name):
        message = f"{uri} was there when the run was planned, and is not now; is its disk mounted?"
        raise StoreError(ErrorCode.NOT_FOUND, message, Scope.STORE)


def _are_gone(storage: Storage, failed: Sequence[ImageRow]) -> bool:
    """Return whether they were deleted since they were planned: a listing no longer has them."""
    some = failed[:_MAX_ASKED]
    return all(image["error_code"] == ErrorCode.NOT_FOUND for image in some) and not any(
        storage.for_input().lists(_object(image)) for image in some
    )


def _any_answers(storage: Storage, others: Sequence[ImageRow], max_bytes: int, uri: str) -> bool:
    """Ask for other images until one can be read; where there are none, for the listing."""
    if not others:
        storage.for_input().lists(uri)
        return True
    return any(_answers(storage, image, max_bytes) for image in others)


def _others(storage: Storage, task: ShardTask, number: int) -> Iterator[ImageRow]:
    """Find images of other shards, from all over the plan; some more than the number."""
    folder, _, own = task["plan_uri"].rpartition("/")
    # Not of this file alone: it may hold a prefix that nobody may read, of many shards.
    names = [name for name in storage.children(folder) if name != own]
    files = [own, *_spread(names, min(number, _MAX_FILES) - 1)]
    of_each = -(-number // len(files))
    for name in files:
        file = pq.ParquetFile(pa.BufferReader(storage.read(f"{folder}/{name}")), pre_buffer=False)
        groups = [
            group
            for group in range(file.num_row_groups)
            if (name, group) != (own, task["row_group"])
        ]
        some = _spread(groups, of_each)
        for group in some:
            rows = file.read_row_group(group, use_threads=False)
            wanted = _spread(range(rows.num_rows), -(-of_each // len(some)))
            yield from filter(_can_be_asked_for, rows.take(list(wanted)).to_pylist())


def _can_be_asked_for(image: ImageRow) -> bool:
    return image["etag"] is not None and image.get("error_code") is None


def _spread(candidates: Sequence[_T], number: int) -> Sequence[_T]:
    """Return so many of them, evenly spread, the last one included."""
    return candidates[:: -max(1, len(candidates) // number)][:number]


def _answers(storage: Storage, image: ImageRow, max_bytes: int) -> bool:
    try:
        read_image(storage.for_input(), Extent.of_image(image), image["etag"], max_bytes)
    except StoreError as error:
        return error.code not in _DOUBTFUL
    return True
