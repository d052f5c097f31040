"""Opening the Parquet files of an input whose rows hold images: each row is a source.

Footers alone are read: how many rows there are, and how large the images of a row group are on
average, all columns together, which cuts shards. Images themselves are read when they are labelled.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.errors import ErrorCode, InputError, StoreError
from pipeline.inputs.open_tars import is_of_one_tar, refused
from pipeline.inputs.source import Source
from pipeline.store.cells import ParquetObject, described, image_columns
from pipeline.store.entry import Entry
from pipeline.store.extent import cell_name, key_inside, uri_inside
from pipeline.store.in_flight import answers_of
from pipeline.store.storage import Storage

_log = logging.getLogger(__name__)

PARQUET = ".parquet"
# What is said of a table by its own bytes.
OF_ITS_BYTES = (ErrorCode.CORRUPT, ErrorCode.UNSUPPORTED_FORMAT)


@dataclass(frozen=True)
class _Opened:
    """A file of a listing.

    Attributes:
        sources: What it is, or holds.
        is_table: Whether it is a table with a column of images.
        has_rows: Whether it has any.
        refusal: Why it can't be read.
        without_images: What is said of a table that has no such column.
    """

    sources: Iterable[Source] = ()
    is_table: bool = False
    has_rows: bool = True
    refusal: StoreError | None = None
    without_images: str = ""


class OpenTables:
    """Opens Parquet files, several at a time.

    Attributes:
        num_without_images: Tables that have no column of images, which are left out.
        num_empty: Tables that have one, and no rows.
    """

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
        self.num_without_images = self.num_empty = 0

    @property
    def num_reads(self) -> int:
        """Return how many requests the footers took."""
        return self._storage.requests["read"]

    def opened(self, found: Iterable[Source]) -> Iterator[Source]:
        """Put the rows of tables in their place.

        Args:
            found: The images and tables of a listing.

        Raises:
            InputError: A table has several columns that may be images, or none of them has one.
            StoreError: None of the tables can be read, or the store does not answer.
        """
        refusal: StoreError | None = None
        num_tables, without_images = 0, ""
        for one in answers_of(self._look, found, self._threads):
            num_tables += one.is_table
            self.num_empty += not one.has_rows
            self.num_without_images += bool(one.without_images)
            without_images = without_images or one.without_images
            refusal = refusal or one.refusal
            yield from one.sources
        if num_tables:
            self._say_what_is_left_out(without_images)
        elif without_images:
            raise InputError(without_images)
        elif refusal:
            raise refusal

    def _say_what_is_left_out(self, first: str) -> None:
        if self.num_without_images:
            number = self.num_without_images
            _log.warning("%d Parquet files are left out, such as this one: %s", number, first)

    def _look(self, file: Source) -> _Opened:
        if not is_table(file.uri) or file.version is None or file.refusal is not None:
            return _Opened([file])
        entry = Entry(file.uri, file.version, file.num_bytes or 0)
        try:
            opened = ParquetObject(self._storage, entry)
        except StoreError as error:
            if error.code in OF_ITS_BYTES:
                reason = (file.version, None, error.code, error.message)
                return _Opened([Source(file.key, file.uri, *reason)], is_table=True)
            if not is_of_one_tar(error):
                raise
            return _Opened([refused(file, error)], refusal=error)
        column = self._choose(opened)
        if column is None:
            return _Opened(without_images=self._without_images(opened))
        has_rows = any(num_rows for num_rows, _ in opened.groups)
        return _Opened(_rows(file, column, opened.groups), is_table=True, has_rows=has_rows)

    def _choose(self, file: ParquetObject) -> str | None:
        there = image_columns(file.schema)
        if self._column is not None or not there:
            return self._column if self._column in there else None
        if len(there) > 1:
            raise InputError(
                f"{file.uri} has {len(there)} columns that may be images; image_column names one. "
                f"It has {described(file.schema)}"
            )
        return next(iter(there))

    def _without_images(self, file: ParquetObject) -> str:
        named = "" if self._column is None else f" {self._column!r}"
        return (
            f"{file.uri} has no column{named} of images, which are binary, or a struct with "
            f"`bytes`, and have a name of their own. It has {described(file.schema)}"
        )


def _rows(file: Source, column: str, groups: Sequence[tuple[int, int]]) -> Iterator[Source]:
    """Make a source of each row: of a size that is the mean of its row group."""
    row = 0
    for num_rows, num_bytes in groups:
        for _ in range(num_rows):
            name = cell_name(column, row)
            place = (key_inside(file.key, name), uri_inside(file.uri, name))
            yield Source(*place, file.version, num_bytes // num_rows)
            row += 1


def is_table(name: str) -> bool:
    """Return whether a name is that of a Parquet file, by its ending.

    Args:
        name: A key or URI.
    """
    return name.lower().endswith(PARQUET)
