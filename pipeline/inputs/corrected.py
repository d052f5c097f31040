"""A large data set with corrections over it, of whatever layout and coding they are."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError, SettingError, StoreError
from pipeline.images.ground_truth import Coding, TruthError, decode_truth
from pipeline.inputs.corrections import matched, named
from pipeline.inputs.data_set import Asked, DataSet, open_data_set
from pipeline.inputs.drawn import write_truths
from pipeline.inputs.samples import Sample
from pipeline.inputs.unpacked import unpack_truths
from pipeline.store.cells import read_image
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage, sha256_hex

_log = logging.getLogger(__name__)


def open_corrected(storage: Storage, asked: Asked, corrections: str | None) -> DataSet:
    """Open a data set, and put the truths of another in the place of its own.

    The images stay those of the data set, in their splits.

    Args:
        storage: Of both.
        asked: What the settings say of the data set.
        corrections: Where the other is; None leaves the data set as it is.

    Raises:
        InputError: There is no data set, or a correction is of no image of it.
        SettingError: The classes are not known, are others, or are coded in a way that can't be
            brought together.
    """
    data = open_data_set(storage, asked)
    if corrections is None:
        return data
    theirs = open_data_set(
        storage, Asked(corrections, None, drawn_to=asked.drawn_to, known=data.classes)
    )
    found = matched(data.found, named(theirs.found))
    coded = _as_coded(storage, data, theirs, list(found.values()), asked.drawn_to)
    truths = dict(zip(found, coded, strict=True))
    splits = {
        name: [_corrected(one, truths.get(one.image_uri)) for one in some]
        for name, some in data.found.splits.items()
    }
    _log.info("%d corrections from %s take the place of labels of data", len(truths), corrections)
    return dataclasses.replace(data, found=dataclasses.replace(data.found, splits=splits))


def _corrected(sample: Sample, truth: Sample | None) -> Sample:
    """Give an image the truth of another sample, if there is one."""
    if truth is None:
        return sample
    return dataclasses.replace(
        sample,
        mask_uri=truth.mask_uri,
        mask_offset=truth.mask_offset,
        mask_bytes=truth.mask_bytes,
    )


def _as_coded(
    storage: Storage, data: DataSet, theirs: DataSet, samples: Sequence[Sample], drawn_to: str
) -> Sequence[Sample]:
    """Bring corrections into the coding of the data: as they are, or written as class indices."""
    if theirs.coding.described() == data.coding.described():
        return samples
    if data.coding.kind != "indices":
        raise SettingError(
            f"the ground truth of data is {data.coding.kind}, that of corrections "
            f"{theirs.coding.kind}; over others than class indices, corrections are of the same"
        )
    if theirs.coding.kind == "indices":  # tables that are not read are no difference
        return samples
    samples = unpack_truths(storage, samples, drawn_to)
    contents = [sha256_hex(_read(storage, one.mask)) for one in samples]
    deciding = json.dumps([contents, theirs.coding.described()]).encode()
    truths = (partial(_decoded, storage, one.mask, theirs.coding) for one in samples)
    colours = [label.color for label in data.classes]
    folder = f"{drawn_to}/{sha256_hex(deciding)[:16]}"
    uris = write_truths(storage, folder, truths, colours)
    return [Sample(one.image_uri, uri) for one, uri in zip(samples, uris, strict=True)]


def _decoded(storage: Storage, truth: Extent, coding: Coding) -> NDArray[np.uint8]:
    try:
        return decode_truth(_read(storage, truth), coding)
    except TruthError as error:
        raise InputError(f"{truth}: {error}") from error


def _read(storage: Storage, truth: Extent) -> bytes:
    try:
        return read_image(storage, truth)
    except StoreError as error:
        if error.lasting:
            raise InputError(f"correction {error.message}") from error
        raise
