"""Parquet files whose rows hold an image and its mask: Hugging Face's form.

Two columns hold encoded files, as bytes or as the feature Image, a struct of bytes and path. Which
is the mask is told by its name: Hugging Face's data sets for segmentation call it `label`,
`annotation` or `mask`. A row is named by its column `uri`, as our export has it, or the path.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa

from pipeline.errors import InputError, StoreError
from pipeline.inputs.open_tables import OF_ITS_BYTES
from pipeline.inputs.samples import Labelled, Sample, check_divided, split_of
from pipeline.store.cells import ParquetObject, described, image_columns
from pipeline.store.entry import Entry
from pipeline.store.extent import cell_name, uri_inside
from pipeline.store.storage import Storage

_log = logging.getLogger(__name__)

MASKS = ("mask", "label", "annotation", "segmentation", "semantic_segmentation", "labels")
_IMAGE = "image"
_URI, _PATH = "uri", "path"
# A manifest has it, whose columns may be of bytes.
_MANIFESTS = "mask_uri"
_THREADS = 8

_Named = tuple[Sample, str | None]


def has_pair(storage: Storage, file: Entry) -> bool:
    """Return whether a Parquet file holds images and masks, and does not only name them.

    Args:
        storage: Where it is.
        file: As it was listed; of a damaged one its reader says more.

    Raises:
        StoreError: The store does not answer, or does not give it.
    """
    try:
        schema = ParquetObject(storage, file).schema
    except StoreError as error:
        if error.code in OF_ITS_BYTES:
            return False
        raise
    return len(image_columns(schema)) > 1 and _MANIFESTS not in schema.names


def read_pairs(
    storage: Storage, uri: str, files: Sequence[Entry], classes_uri: str | None
) -> Labelled:
    """Read which images and masks lie in Parquet files: their footers, and their rows' names.

    Args:
        storage: Where they are.
        uri: Of the data set: the folder, or the only file.
        files: All of them.
        classes_uri: Of the classes file, if there is one.

    Raises:
        InputError: A file is damaged, or it can't be told which of its columns is what.
        StoreError: The store does not answer.
    """
    splits: dict[str, list[Sample]] = {}
    names: dict[str, str] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        opened = list(pool.map(partial(_opened, storage), files))
        tables = [one for one in opened if image_columns(one.schema)] or opened
        for table, rows in zip(tables, pool.map(_rows, tables), strict=True):
            split = splits.setdefault(split_of(table.uri.removeprefix(uri).lstrip("/")), [])
            split += [sample for sample, _ in rows]
            names.update({sample.image_uri: name or "" for sample, name in rows})
    if len(tables) < len(files):
        without = len(files) - len(tables)
        _log.warning("%d Parquet files of %s have no images and are left out", without, uri)
    check_divided(splits, uri)
    return Labelled("parquet", splits, classes_uri, names=names)


def _rows(file: ParquetObject) -> list[_Named]:
    image, mask = _columns(file)
    return [
        (Sample(_place(file, image, row), _place(file, mask, row)), name)
        for row, name in enumerate(_names(file, image))
    ]


def _place(file: ParquetObject, column: str, row: int) -> str:
    return uri_inside(file.uri, cell_name(column, row))


def _opened(storage: Storage, file: Entry) -> ParquetObject:
    try:
        return ParquetObject(storage, file)
    except StoreError as error:
        if error.lasting:
            raise InputError(error.message) from error
        raise


def _columns(file: ParquetObject) -> tuple[str, str]:
    """Tell which column holds the images, and which the masks."""
    there = list(image_columns(file.schema))
    masks = [name for name in there if name.lower() in MASKS]
    others = [name for name in there if name not in masks]
    images = [name for name in others if name.lower() == _IMAGE] or others
    if len(masks) != 1 or len(images) != 1:
        raise InputError(
            f"{file.uri} needs one column of images and one of masks, called "
            f"{', '.join(MASKS[:-1])} or {MASKS[-1]}; it has {described(file.schema)}"
        )
    return images[0], masks[0]


def _names(file: ParquetObject, image: str) -> list[str | None]:
    """Read what the rows are called, where the file says so."""
    kinds = dict(zip(file.schema.names, file.schema.types, strict=True))
    try:
        if _URI in kinds and (pa.types.is_string(kinds[_URI]) or _is_large(kinds[_URI])):
            return list(file.read_texts(_URI))
        if pa.types.is_struct(kinds[image]) and kinds[image].get_field_index(_PATH) >= 0:
            paths = file.read_texts(image, _PATH)
            return [path and path.lstrip("/") for path in paths]
    except StoreError as error:
        if error.lasting:
            raise InputError(error.message) from error
        raise
    return [None] * sum(number for number, _ in file.groups)


def _is_large(kind: pa.DataType) -> bool:
    found: bool = pa.types.is_large_string(kind)
    return found
