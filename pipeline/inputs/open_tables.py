"""Opening the Parquet files of an input whose rows hold images: each row is a source.

Footers alone are read: how many rows there are, and how large the images of a row group are on
average, which cuts shards. Images themselves are read when they are labelled.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from pipeline.errors import ErrorCode, InputError, StoreError
from pipeline.inputs.open_tars import is_of_one_tar, refused
from pipeline.inputs.source import Source
from pipeline.store.cells import ImageColumn, ParquetObject, described, image_columns
from pipeline.store.entry import Entry
from pipeline.store.extent import cell_name, key_inside, uri_inside
from pipeline.store.in_flight import answers_of
from pipeline.store.storage import Storage

PARQUET = ".parquet"


@dataclass(frozen=True)
class _Opened:
    """A file of a listing.

    Attributes:
        file: As it was listed; a row itself where it is no table, or can't be read.
        column: Of its images.
        groups: Rows and bytes of its row groups; None where it was not opened.
        refusal: Why it can't be read.
    """

    file: Source
    column: str = ""
    groups: list[tuple[int, int]] | None = None
    refusal: StoreError | None = None


class OpenTables:
    """Opens Parquet files, several at a time."""

    def __init__(self, storage: Storage, threads: int, column: str | None) -> None:
        """Begin with none.

        Args:
            storage: The storage as it reads the input.
            threads: Number of files that are opened at a time.
            column: The column of the images; None takes the only one that may be it.
        """
        self._storage = storage.counting()
        self._threads = threads
        self._column = column

    @property
    def num_reads(self) -> int:
        """Return how many requests the footers took."""
        return self._storage.requests["read"]

    def opened(self, found: Iterable[Source]) -> Iterator[Source]:
        """Put the rows of tables in their place.

        Args:
            found: The images and tables of a listing.

        Raises:
            InputError: A table has no column of images, or several.
            StoreError: None of the tables can be read, or the store does not answer.
        """
        refusal: StoreError | None = None
        any_opened = False
        for one in answers_of(self._look, found, self._threads):
            any_opened |= one.groups is not None
            refusal = refusal or one.refusal
            yield from _rows(one)
        if refusal and not any_opened:
            raise refusal

    def _look(self, file: Source) -> _Opened:
        if not is_table(file.uri) or file.version is None or file.refusal is not None:
            return _Opened(file)
        entry = Entry(file.uri, file.version, file.num_bytes or 0)
        try:
            opened = ParquetObject(self._storage, entry)
        except StoreError as error:
            if error.code is ErrorCode.CORRUPT:
                reason = (file.version, None, ErrorCode.CORRUPT, error.message)
                return _Opened(Source(file.key, file.uri, *reason))
            if not is_of_one_tar(error):
                raise
            return _Opened(refused(file, error), refusal=error)
        column = self._choose(opened.uri, opened.schema)
        return _Opened(file, column, ImageColumn(opened, column).groups)

    def _choose(self, uri: str, schema: pa.Schema) -> str:
        there = image_columns(schema)
        if self._column in there:
            return self._column
        if self._column is None and len(there) == 1:
            return next(iter(there))
        wanted = (
            "image_column names one" if there else "images are binary, or a struct with `bytes`"
        )
        what = f"no column {self._column!r} of images"
        if self._column is None:
            what = f"{len(there)} columns that may be images" if there else "no column of images"
        raise InputError(f"{uri} has {what}; {wanted}. It has {described(schema)}")


def _rows(one: _Opened) -> Iterator[Source]:
    """Make a source of each row: of a size that is the mean of its row group."""
    if one.groups is None:
        yield one.file
        return
    row = 0
    for num_rows, num_bytes in one.groups:
        for _ in range(num_rows):
            name = cell_name(one.column, row)
            yield Source(
                key_inside(one.file.key, name),
                uri_inside(one.file.uri, name),
                one.file.version,
                num_bytes // num_rows,
            )
            row += 1


def is_table(name: str) -> bool:
    """Return whether a name is that of a Parquet file, by its ending.

    Args:
        name: A key or URI.
    """
    return name.lower().endswith(PARQUET)
