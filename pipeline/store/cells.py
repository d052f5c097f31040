"""Images in Parquet files: values of a column, in one version of the file.

A value of a packed column has no bytes of its own in the file. Whoever reads one reads its column
from the start of its row group on. So a column is read forward, some images at a time: whoever
wants them in order reads every byte once, and holds few.
"""

import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import ErrorCode, StoreError
from pipeline.store.entry import Entry, changed_since, check_size
from pipeline.store.extent import Extent
from pipeline.store.object_file import ObjectFile
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
        max_bytes: The limit on its bytes; None for none, and for any version of an object.
        columns: What stays open for who reads many in order; None opens a file for each image.

    Raises:
        StoreError: As `Storage.read_version_of`; for a value in a Parquet file also `corrupt`.
    """
    if place.cell is None and max_bytes is None:
        return storage.read_extent(place)
    if place.cell is None:
        return storage.read_version_of(place, version, max_bytes or 0)
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
        groups: The rows of each row group, and its unpacked bytes in all columns.
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
        source = ObjectFile(storage, entry)
        with self._whole():
            self._file = pq.ParquetFile(source, pre_buffer=False, buffer_size=_BUFFER_BYTES)
            self.schema: pa.Schema = self._file.schema_arrow
            self.groups = self._groups()

    def _groups(self) -> list[tuple[int, int]]:
        """Look at row groups as wholes: what pyarrow has of a damaged column ends the process."""
        metadata = self._file.metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        found = [(group.num_rows, group.total_byte_size) for group in groups]
        numbers = [num_rows for num_rows, _ in found]
        if min(numbers, default=0) < 0 or sum(numbers) != metadata.num_rows:
            raise ValueError(f"its row groups have {numbers} rows, all of it {metadata.num_rows}")
        return found

    def read_column(self, group: int, column: str, number: int) -> Iterator[Any]:
        """Read a column of a row group, as arrays of bytes, some rows at a time.

        Args:
            group: Number of the row group.
            column: One of `image_columns`.
            number: Rows at a time.

        Raises:
            StoreError: The file has changed, or is `corrupt`.
        """
        with self._whole():
            for batch in self._file.iter_batches(
                number,
                row_groups=[group],
                columns=[image_columns(self.schema)[column]],
                use_threads=False,
            ):
                # A path with a dot may be that of a column beside the one that is meant.
                found = batch.column(batch.schema.get_field_index(column))
                is_struct = pa.types.is_struct(found.type)
                yield pc.struct_field(found, "bytes") if is_struct else found

    def read_texts(self, column: str, field: str | None = None) -> Iterator[str | None]:
        """Read a column of texts, of all rows.

        Args:
            column: The name of the column.
            field: Of a struct; None for a column that is none.

        Raises:
            StoreError: The file has changed, or is `corrupt`.
        """
        path = column if field is None else f"{column}.{field}"
        with self._whole():
            for batch in self._file.iter_batches(columns=[path], use_threads=False):
                # A path with a dot may be that of a column beside the one that is meant.
                found = batch.column(batch.schema.get_field_index(column))
                yield from (found if field is None else pc.struct_field(found, field)).to_pylist()

    @contextmanager
    def _whole(self) -> Iterator[None]:
        try:
            yield
        except pa.ArrowCancelled:
            raise
        except DAMAGE as error:
            reason = str(error).split("\n", maxsplit=1)[0]
            if isinstance(error, MemoryError):
                code, what = ErrorCode.OUT_OF_MEMORY, "there is no memory for a page of it"
            elif isinstance(error, pa.ArrowNotImplementedError):
                code, what = ErrorCode.UNSUPPORTED_FORMAT, "it is a Parquet that is not read here"
            else:
                code, what = ErrorCode.CORRUPT, "it is no whole Parquet file"
            raise StoreError(code, f"{self.uri}: {what}: {reason}") from error


class ImageColumn:
    """A column of images, read forward; by several threads, if they go on side by side."""

    def __init__(self, file: ParquetObject, column: str, behind: int = 0) -> None:
        """Find the column, without reading it.

        Args:
            file: The file.
            column: The name of the column.
            behind: Rows that stay in memory behind the last one that was asked for.

        Raises:
            StoreError: `corrupt` if there is no such column of images.
        """
        if column not in image_columns(file.schema):
            raise StoreError(
                ErrorCode.CORRUPT,
                f"{file.uri} has no column {column!r} of images; it has {described(file.schema)}",
            )
        self._file = file
        self._column = column
        self._ends = list(accumulate(num_rows for num_rows, _ in file.groups))
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
            raise StoreError(ErrorCode.CORRUPT, message)
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
        num_rows, num_bytes = self._file.groups[group] if group >= 0 else (0, 0)
        number = min(_IMAGES_AT_A_TIME, _BYTES_AT_A_TIME * num_rows // (num_bytes or 1))
        self._coming = self._file.read_column(group, self._column, max(1, number))
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
            self._begin(self._group)
            if error.code is ErrorCode.CORRUPT:
                self._kept, self._damage = [_Part(first, ())], error
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
        self._open: dict[tuple[str, str | None, str], _Slot] = {}
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
            slot = self._open[named] = self._open.pop(named, _Slot())
            while len(self._open) > _MAX_OPEN:
                del self._open[next(iter(self._open))]
        # Who wants another file need not wait for this one.
        with slot.one_at_a_time:
            if slot.column is None:
                file = open_parquet(storage, place.uri, version)
                slot.column = ImageColumn(file, place.cell.column, self._behind)
            return slot.column


@dataclass
class _Slot:
    """A column that is open, or is being opened."""

    one_at_a_time: threading.Lock = field(default_factory=threading.Lock)
    column: ImageColumn | None = None


def image_columns(schema: pa.Schema) -> dict[str, str]:
    """Find what may hold images: binary columns, and structs with `bytes`, as Hugging Face's.

    Args:
        schema: Of a file.

    Returns:
        The path of its bytes, by the name of the column.
    """
    names = Counter(schema.names)
    found = {}
    for one in schema:
        if not one.name or names[one.name] > 1:
            continue  # none that could be asked for
        if _is_binary(one.type):
            found[one.name] = one.name
        elif pa.types.is_struct(one.type):
            index = one.type.get_field_index("bytes")
            if index >= 0 and _is_binary(one.type.field(index).type):
                found[one.name] = f"{one.name}.bytes"
    return found


def described(schema: pa.Schema) -> str:
    """Name the columns of a file for a person; the first ones of many.

    Args:
        schema: Of the file.
    """
    names = [f"{field.name} ({field.type})" for field in schema]
    return ", ".join(names[:_MAX_NAMED]) + (", ..." if len(names) > _MAX_NAMED else "")


def _is_binary(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = ("is_binary", "is_large_binary", "is_binary_view", "is_fixed_size_binary")
    return any(getattr(pa.types, test)(kind) for test in tests)
