"""Unpacking: what lies in Parquet files becomes files, before it is read in no order.

Whoever wants one value of a column reads its row group up to there. Training reads images in an
order of its own, again and again, so that it would read each file hundreds of times.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from pipeline.errors import InputError, StoreError
from pipeline.inputs.drawn import write_once
from pipeline.inputs.samples import Sample
from pipeline.store.cells import OpenColumns, read_image
from pipeline.store.extent import Cell, Extent
from pipeline.store.storage import Storage, sha256_hex

# Threads that read side by side are so many rows apart at most.
_BEHIND = 64


def unpack_truths(storage: Storage, samples: Sequence[Sample], folder: str) -> list[Sample]:
    """Unpack the ground truth of samples; images stay where they are.

    Args:
        storage: Of both.
        samples: Some of a data set.
        folder: Where to; files of other data stay beside it.

    Raises:
        InputError: A file is damaged, or has no such row.
        StoreError: The store does not answer.
    """
    copies = _unpacked(storage, (sample.mask for sample in samples), folder)
    return [_with_truth(sample, copies) for sample in samples]


def unpack(storage: Storage, samples: Sequence[Sample], folder: str) -> list[Sample]:
    """Unpack images and ground truth of samples. As `unpack_truths`."""
    places = (place for sample in samples for place in (sample.image, sample.mask))
    copies = _unpacked(storage, places, folder)
    return [
        dataclasses.replace(_with_truth(sample, copies), image_copy=copies.get(sample.image))
        for sample in samples
    ]


def _with_truth(sample: Sample, copies: dict[Extent, str]) -> Sample:
    copy = copies.get(sample.mask)
    return sample if copy is None else dataclasses.replace(sample, mask_uri=copy)


def _unpacked(storage: Storage, places: Iterable[Extent], folder: str) -> dict[Extent, str]:
    """Copy values of Parquet files; returns where each is now."""
    cells = sorted({one for one in places if one.cell is not None}, key=_in_order)
    if not cells:
        return {}
    versions = {uri: _version(storage, uri) for uri in dict.fromkeys(one.uri for one in cells)}
    deciding = json.dumps([versions, [_in_order(one) for one in cells]]).encode()
    columns = OpenColumns(behind=_BEHIND)
    files = (partial(_read, storage, one, versions[one.uri], columns) for one in cells)
    place = f"{folder}/{sha256_hex(deciding)[:16]}"
    what = f"unpacking {len(cells)} values of {len(versions)} Parquet files"
    return dict(zip(cells, write_once(storage, place, files, what), strict=True))


def _in_order(place: Extent) -> tuple[str, Cell | None]:
    return place.uri, place.cell


def _version(storage: Storage, uri: str) -> str:
    with _as_input():
        return storage.stat(uri).version


def _read(storage: Storage, place: Extent, version: str, columns: OpenColumns) -> bytes:
    with _as_input():
        return read_image(storage, place, version, columns=columns)


@contextmanager
def _as_input() -> Iterator[None]:
    """Blame the data for what is true of it, and the store for what is not."""
    try:
        yield
    except StoreError as error:
        if error.lasting:
            raise InputError(error.message) from error
        raise
