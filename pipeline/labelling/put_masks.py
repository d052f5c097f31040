"""Putting the masks of a shard: each a file of its own, or all of them in a tar.

Every object is put-if-absent. Whichever attempt writes a mask first has written it for good, and
whoever finds another one's gets to know it.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from pipeline.errors import ErrorCode, StoreError
from pipeline.labelling.mask_tar import TornTarError, pack, spans_of, tar_uri
from pipeline.labelling.runs import damaged
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage

Masks = Mapping[str, bytes]


class Put(NamedTuple):
    """A mask that stands in the output: where, and its PNG file; or why it can't.

    Attributes:
        place: Where it stands, or should.
        png: Its file.
        refusal: What keeps it out: its name, which is nobody else's.
    """

    place: Extent
    png: bytes
    refusal: StoreError | None = None


def put_files(storage: Storage, folder: str, threads: int, masks: Masks) -> dict[str, Put]:
    """Put masks as files.

    Args:
        storage: Reads and writes the output.
        folder: URI of the run's masks.
        threads: Masks written at a time.
        masks: PNG files by `mask_key`.

    Returns:
        What stands there, by `mask_key`.

    Raises:
        StoreError: The store did not take them.
    """
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(partial(_put_file, storage, folder), masks.items())
        return dict(zip(masks, found, strict=True))


def _put_file(storage: Storage, folder: str, mask: tuple[str, bytes]) -> Put:
    mask_key, png = mask
    uri = f"{folder}/{mask_key}"
    try:
        return _put(storage, uri, png)
    except StoreError as error:
        if error.code is not ErrorCode.NAME_REFUSED:
            raise
        return Put(Extent(uri), png, error)


def _put(storage: Storage, uri: str, png: bytes) -> Put:
    return Put(Extent(uri), png if storage.create(uri, png) else storage.read(uri))


def put_tar(storage: Storage, folder: str, shard: int, masks: Masks) -> dict[str, Put]:
    """Put masks in a tar; those that a tar of another attempt lacks, in a further one.

    Args:
        storage: Reads and writes the output.
        folder: URI of the run's masks.
        shard: The shard's number.
        masks: PNG files by `mask_key`.

    Returns:
        What stands there, by `mask_key`.

    Raises:
        StoreError: The store did not take them.
        InputError: A tar that stands there is damaged.
    """
    found: dict[str, Put] = {}
    number = 0
    while left := {mask_key: png for mask_key, png in masks.items() if mask_key not in found}:
        uri = tar_uri(folder, shard, number)
        tar = pack(left)
        if not storage.create(uri, tar):
            tar = storage.read(uri)
        for mask_key, span in _spans(uri, tar).items():
            if mask_key in left:
                place = Extent(uri, span.start, len(span))
                found[mask_key] = Put(place, tar[span.start : span.stop])
        number += 1
    return found


def _spans(uri: str, tar: bytes) -> dict[str, range]:
    try:
        return spans_of(tar)
    except TornTarError as error:
        raise damaged(uri, error) from error
