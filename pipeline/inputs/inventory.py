"""S3 Inventory: a bucket's own list of its objects, in place of a listing.

Amazon S3 User Guide, "Locating your inventory list": manifest.json names the source bucket and the
files of the list, in CSV (packed by gzip, keys encoded as in URLs), Apache ORC or Apache Parquet.
"""

import gzip
import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.csv
import pyarrow.orc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from pipeline.errors import InputError
from pipeline.store.bucket_answers import etag_of
from pipeline.store.entry import Entry
from pipeline.store.storage import Storage

INVENTORY_NAME = "manifest.json"

_ROWS_AT_A_TIME = 10_000
_MAX_DIGITS = 18  # of a number of 64 bits
_NEXT = "take the next inventory"
_KEY, _SIZE, _ETAG = "key", "size", "e_tag"
# Of a bucket with versions only what a reader would get counts.
_LATEST, _DELETED = "is_latest", "is_delete_marker"
# By the names of ORC and Parquet, those of CSV.
_IN_CSV = {
    _KEY: "Key",
    _SIZE: "Size",
    _ETAG: "ETag",
    _LATEST: "IsLatest",
    _DELETED: "IsDeleteMarker",
}


class _File(BaseModel):
    key: str
    md5: str = Field(alias="MD5checksum")


class _Inventory(BaseModel):
    """manifest.json of an inventory."""

    model_config = ConfigDict(alias_generator=to_camel)

    source_bucket: str
    destination_bucket: str
    file_format: Literal["CSV", "ORC", "Parquet"]
    file_schema: str
    files: list[_File]


def read_inventory(storage: Storage, uri: str) -> Iterator[Entry]:
    """Read an inventory: the objects as they were when it was made, in no order.

    Args:
        storage: Reads and writes the bucket that has the inventory.
        uri: The URI of its manifest.json.

    Raises:
        InputError: It is no inventory, lacks a field, or is damaged.
        StoreError: A file of it can't be read.
    """
    inventory = _manifest(uri, storage.read(uri))
    folder = f"s3://{inventory.destination_bucket.rpartition(':')[2]}"
    for file in inventory.files:
        place = f"{folder}/{file.key}"
        data = storage.read(place)
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != file.md5:
            raise InputError(
                f"{place} is not the file that {uri} names: its MD5 is another one; copy it again, "
                "or take the next inventory"
            )
        yield from _entries(inventory, _Table(uri, place, inventory.file_schema), data)


def _manifest(uri: str, data: bytes) -> _Inventory:
    try:
        return _Inventory.model_validate_json(data)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in error.errors()
        )
        raise InputError(
            f"input={uri!r} is no manifest of an S3 Inventory ({wrong[:300]}); a manifest of "
            "images is .parquet, .csv or .jsonl"
        ) from error


@dataclass(frozen=True)
class _Table:
    """One file of an inventory."""

    manifest: str
    uri: str
    schema: str

    def batches(self, file_format: str, data: bytes) -> Iterator[pa.RecordBatch]:
        """Read the columns that are used, under the names of ORC and Parquet."""
        readers: dict[str, Callable[[bytes], Iterator[pa.RecordBatch]]] = {
            "CSV": self._csv,
            "ORC": self._orc,
            "Parquet": self._parquet,
        }
        try:
            for batch in readers[file_format](data):
                batch.validate(full=True)  # texts that are none would be errors of Python's
                yield batch
        except (pa.ArrowException, OSError, EOFError) as error:
            raise InputError(f"{self.uri} can't be read: {error}") from error

    def _csv(self, data: bytes) -> Iterator[pa.RecordBatch]:
        names = [name.strip() for name in self.schema.split(",")]
        if not gzip.GzipFile(fileobj=io.BytesIO(data)).read(1):
            return
        wanted = self._wanted([name for name, theirs in _IN_CSV.items() if theirs in names])
        columns = [_IN_CSV[name] for name in wanted]
        lines = pa.csv.open_csv(
            pa.CompressedInputStream(pa.BufferReader(data), "gzip"),
            read_options=pa.csv.ReadOptions(column_names=names, use_threads=False),
            convert_options=pa.csv.ConvertOptions(
                include_columns=columns, column_types=dict.fromkeys(columns, pa.string())
            ),
        )
        yield from (batch.rename_columns(wanted) for batch in lines)

    def _orc(self, data: bytes) -> Iterator[pa.RecordBatch]:
        file = pa.orc.ORCFile(pa.BufferReader(data))
        wanted = self._wanted(file.schema.names)
        for stripe in range(file.nstripes):
            rows = file.read_stripe(stripe, wanted).select(wanted)
            for first in range(0, rows.num_rows, _ROWS_AT_A_TIME):
                yield rows.slice(first, _ROWS_AT_A_TIME)

    def _parquet(self, data: bytes) -> Iterator[pa.RecordBatch]:
        file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
        wanted = self._wanted(file.schema_arrow.names)
        yield from file.iter_batches(_ROWS_AT_A_TIME, columns=wanted, use_threads=False)

    def _wanted(self, names: list[str]) -> list[str]:
        missing = [_IN_CSV[name] for name in (_KEY, _SIZE, _ETAG) if name not in names]
        if missing:
            raise InputError(
                f"the inventory {self.manifest} lacks {' and '.join(missing)}, which tell whether "
                "an image has changed; add them to its optional fields and take the next one"
            )
        return [name for name in _IN_CSV if name in names]


def _entries(inventory: _Inventory, table: _Table, data: bytes) -> Iterator[Entry]:
    is_csv = inventory.file_format == "CSV"
    for batch in table.batches(inventory.file_format, data):
        columns = batch.to_pydict()
        everywhere = [None] * batch.num_rows
        latest, deleted = (columns.get(name, everywhere) for name in (_LATEST, _DELETED))
        rows = zip(columns[_KEY], columns[_SIZE], columns[_ETAG], latest, deleted, strict=True)
        for key, size, etag, is_latest, is_deleted in rows:
            if _is("false", is_latest) or _is("true", is_deleted):
                continue
            if not isinstance(key, str):
                raise InputError(f"{table.uri}: a key is {key!r}, not a text; {_NEXT}")
            uri = f"s3://{inventory.source_bucket}/{unquote_plus(key) if is_csv else key}"
            version = etag_of({"ETag": etag})
            if not version:
                raise InputError(f"{table.uri}: {uri} has no ETag; {_NEXT}")
            yield Entry(uri, version, _num_bytes(size, table, uri))


def _num_bytes(size: object, table: _Table, uri: str) -> int:
    """Read a size; what has none has no content. Raises InputError."""
    text = "0" if size is None or size == "" else str(size)
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS):
        raise InputError(f"{table.uri}: {uri} has {text[:40]!r} bytes, no number; {_NEXT}")
    return int(text)


def _is(word: str, value: str | bool | None) -> bool:  # noqa: FBT001 - a cell of a table
    return str(value).lower() == word
