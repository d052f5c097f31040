"""Images in Parquet files: values of a column, in one version of the file.

A value of a packed column has no bytes of its own in the file. Whoever reads one reads its column
from the start of its row group on. So a column is read forward, some images at a time: whoever
wants them in order reads every byte once, and holds few.
"""

import io
import threading
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import ErrorCode, StoreError
from pipeline.store.entry import Entry, changed_since, check_size
from pipeline.store.extent import Extent
from pipeline.store.parquet import DAMAGE
from pipeline.store.storage import Storage

# So much is asked for at once, or a page of the column where that is larger: pyarrow, for one, ends
# a page behind 1,024 values. It lies in memory, packed, with the images that are unpacked of it.
_BUFFER_BYTES = 8 << 20
# Images are unpacked in parts of so many, or of so many bytes by their mean.
_IMAGES_AT_A_TIME = 32
_BYTES_AT_A_TIME = 16 << 20
_MAX_NAMED = 8
# Columns that stay open: whoever reads in order is seldom at more than one border between two.
_MAX_OPEN = 2


def read_image(
    storage: Storage,
    place: Extent,
    version: str | None = None,
    max_bytes: int | None = None,
    columns: "OpenColumns | None" = None,
) -> bytes:
    """Read the encoded bytes of an image, wherever they lie.

    Args:
        storage: The storage as it reads the input.
        place: The image.
        version: Of the object that it is, or lies in; None takes any.
        max_bytes: The limit on its bytes; None for none.
        columns: What stays open for who reads many in order; None opens a file for each image.

    Raises:
        StoreError: As `Storage.read_version_of`; for a value in a Parquet file also `corrupt`.
    """
    if place.cell is None:
        if version is None and max_bytes is None:
            return storage.read_extent(place)
        assert max_bytes is not None, "a version is read up to a limit"
        return storage.read_version_of(place, version, max_bytes)
    return (columns or OpenColumns()).open(storage, place, version).read(place, max_bytes)


def open_parquet(storage: Storage, uri: str, version: str | None = None) -> "ParquetObject":
    """Open a Parquet file.

    Args:
        storage: The storage as it reads the input.
        uri: The file.
        version: Of it; None takes any.

    Raises:
        StoreError: It has changed since, can't be read, or is `corrupt`.
    """
    entry = storage.stat(uri)
    if version not in (None, entry.version):
        raise changed_since(uri, str(version), entry.version)
    return ParquetObject(storage, entry)


class ParquetObject:
    """One version of a Parquet file in a store: its footer is read when it is opened.

    Attributes:
        uri: The file.
        schema: Its columns.
    """

    def __init__(self, storage: Storage, entry: Entry) -> None:
        """Read the footer.

        Args:
            storage: The storage as it reads the input.
            entry: The file as it was listed.

        Raises:
            StoreError: It has changed since, can't be read, or is `corrupt`.
        """
        self.uri = entry.uri
        source = _Requested(storage, entry)
        with self._whole():
            self._file = pq.ParquetFile(source, pre_buffer=False, buffer_size=_BUFFER_BYTES)
            self.schema: pa.Schema = self._file.schema_arrow

    def groups_of(self, path: str) -> list[tuple[int, int]]:
        """Return the rows of each row group, and its unpacked bytes in a column.

        Args:
            path: Of the column, with dots.
        """
        metadata = self._file.metadata
        found = []
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            columns = (group.column(index) for index in range(group.num_columns))
            sizes = [one.total_uncompressed_size for one in columns if one.path_in_schema == path]
            found.append((group.num_rows, sum(sizes)))
        return found

    def read_column(self, group: int, path: str, number: int) -> Iterator[Any]:
        """Read a column of a row group, as arrays of bytes, some rows at a time.

        Args:
            group: Number of the row group.
            path: Of the column, with dots.
            number: Rows at a time.

        Raises:
            StoreError: The file has changed, or is `corrupt`.
        """
        with self._whole():
            for batch in self._file.iter_batches(
                number, row_groups=[group], columns=[path], use_threads=False
            ):
                column = batch.column(0)
                is_struct = pa.types.is_struct(column.type)
                yield pc.struct_field(column, "bytes") if is_struct else column

    @contextmanager
    def _whole(self) -> Iterator[None]:
        try:
            yield
        except DAMAGE as error:
            reason = str(error).split("\n", maxsplit=1)[0]
            raise StoreError(
                ErrorCode.CORRUPT, f"{self.uri} is no whole Parquet file: {reason}"
            ) from error


class ImageColumn:
    """A column of images, read forward; by several threads, if they go on side by side.

    Attributes:
        groups: Rows of each row group, and its bytes in this column, unpacked.
    """

    def __init__(self, file: ParquetObject, column: str, behind: int = 0) -> None:
        """Find the column, without reading it.

        Args:
            file: The file.
            column: The name of the column.
            behind: Rows that stay in memory behind the last one that was asked for.

        Raises:
            StoreError: `corrupt` if there is no such column of images.
        """
        path = image_columns(file.schema).get(column)
        if path is None:
            raise StoreError(
                ErrorCode.CORRUPT,
                f"{file.uri} has no column {column!r} of images; it has {described(file.schema)}",
            )
        self._file = file
        self._path = path
        self.groups = file.groups_of(path)
        self._ends = list(accumulate(num_rows for num_rows, _ in self.groups))
        self._behind = behind
        self._one_at_a_time = threading.Lock()
        self._begin(-1)

    def read(self, place: Extent, max_bytes: int | None = None) -> bytes:
        """Read an image. One that lies before what is in memory costs its row group once more.

        Args:
            place: The image, in this column.
            max_bytes: The limit on its bytes; None for none.

        Raises:
            StoreError: The file is damaged, has changed, or has no such row; the row is null; the
                image is too large.
        """
        assert place.cell is not None, f"{place} is no value of a column"
        group, index = self._find(place.cell.row)
        with self._one_at_a_time:
            value: bytes | None = self._value(group, index).as_py()
        if value is None:
            raise StoreError(ErrorCode.CORRUPT, f"{place} is null: there is no image")
        check_size(str(place), len(value), max_bytes)
        return value

    def _find(self, row: int) -> tuple[int, int]:
        group = bisect_right(self._ends, row)
        if group == len(self._ends):
            there = self._ends[-1] if self._ends else 0
            message = f"{self._file.uri} has {there} rows, not row {row}"
            raise StoreError(ErrorCode.NOT_FOUND, message)
        return group, row - (self._ends[group - 1] if group else 0)

    def _value(self, group: int, index: int) -> Any:
        if group != self._group or index < self._kept[0].first:
            self._begin(group)
        while index >= self._kept[-1].end:
            self._go_on()
        part = next(part for part in self._kept if index < part.end)
        return part.rows[index - part.first]

    def _begin(self, group: int) -> None:
        self._group = group
        num_rows, num_bytes = self.groups[group] if group >= 0 else (0, 0)
        number = min(_IMAGES_AT_A_TIME, _BYTES_AT_A_TIME * num_rows // (num_bytes or 1))
        self._coming = self._file.read_column(group, self._path, max(1, number))
        self._kept = [_Part(0, ())]
        self._damage: StoreError | None = None

    def _go_on(self) -> None:
        """Read the next rows of the row group; behind damage nothing is tried again."""
        if self._damage is not None:
            raise self._damage
        first = self._kept[-1].end
        try:
            part = _Part(first, next(self._coming))
        except StopIteration:
            lost = f"{self._file.uri} has fewer rows than its footer says"
            self._damage = StoreError(ErrorCode.CORRUPT, lost)
            raise self._damage from None
        except StoreError as error:
            self._damage = error
            raise
        kept = (one for one in self._kept if one.first < one.end > first - self._behind)
        self._kept = [*kept, part]


class _Part(NamedTuple):
    """Some rows of a row group, and the number of the first."""

    first: int
    rows: Any

    @property
    def end(self) -> int:
        return self.first + len(self.rows)


class OpenColumns:
    """Columns that stay open, the last few, for several threads."""

    def __init__(self, behind: int = 0) -> None:
        """Begin with none.

        Args:
            behind: As `ImageColumn` takes it: how far one thread may be behind another one.
        """
        self._behind = behind
        self._open: dict[tuple[str, str | None, str], ImageColumn] = {}
        self._one_at_a_time = threading.Lock()

    def open(self, storage: Storage, place: Extent, version: str | None) -> ImageColumn:
        """Open the column of an image, or take it if it is open.

        Args:
            storage: The storage as it reads the input.
            place: The image.
            version: Of its file; None takes any.

        Raises:
            StoreError: The file has changed, can't be read, or has no such column.
        """
        assert place.cell is not None, f"{place} is no value of a column"
        named = (place.uri, version, place.cell.column)
        with self._one_at_a_time:
            column = self._open.pop(named, None)
        if column is None:  # others need not wait for the file
            file = open_parquet(storage, place.uri, version)
            column = ImageColumn(file, place.cell.column, self._behind)
        with self._one_at_a_time:
            column = self._open.setdefault(named, column)
            while len(self._open) > _MAX_OPEN:
                del self._open[next(iter(self._open))]
        return column


def image_columns(schema: pa.Schema) -> dict[str, str]:
    """Find what may hold images: binary columns, and structs with `bytes`, as Hugging Face's.

    Args:
        schema: Of a file.

    Returns:
        The path of its bytes, by the name of the column.
    """
    found = {}
    for field in schema:
        if _is_binary(field.type):
            found[field.name] = field.name
        elif pa.types.is_struct(field.type):
            index = field.type.get_field_index("bytes")
            if index >= 0 and _is_binary(field.type.field(index).type):
                found[field.name] = f"{field.name}.bytes"
    return found


def described(schema: pa.Schema) -> str:
    """Name the columns of a file for a person; the first ones of many.

    Args:
        schema: Of the file.
    """
    names = [f"{field.name} ({field.type})" for field in schema]
    return ", ".join(names[:_MAX_NAMED]) + (", ..." if len(names) > _MAX_NAMED else "")


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


class _Requested(io.RawIOBase):
    """One version of an object as a file of which every read is a request."""

    def __init__(self, storage: Storage, entry: Entry) -> None:
        self._storage = storage
        self._entry = entry
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._entry.num_bytes}
        self._position = start[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), max(0, self._entry.num_bytes - self._position))
        if size:
            place = Extent(self._entry.uri, self._position, size)
            buffer[:size] = self._storage.read_version_of(place, self._entry.version, size)
            self._position += size
        return size
