"""Manifests: tables that name the images of an input, or of a labelled data set.

No more is read than the columns that are used, some rows at a time: what else a table holds
(embeddings, scores of mixed types, long texts) decides nothing.
"""

import codecs
import csv
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.inputs.tars import is_tar
from pipeline.store.bucket_answers import etag_of
from pipeline.store.cells import image_columns
from pipeline.store.extent import container_of
from pipeline.store.uri import is_utf8

MANIFEST_ENDINGS = (".parquet", ".csv", ".jsonl", ".ndjson")

_ROWS_AT_A_TIME = 10_000
# Of a column of a Parquet file.
_BUFFER_BYTES = 4 << 20
# The marks of UTF-32 begin as those of UTF-16 do.
_OTHER_ENCODINGS = {
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}

Row = dict[str, Any]


def manifest_uris(file: BinaryIO, manifest_uri: str) -> Iterator[str]:
    """Read the column `uri` of a manifest, each as it stands there.

    Args:
        file: The manifest, which is read in parts.
        manifest_uri: Where it is, whose ending names the format.

    Raises:
        InputError: It has no such column, a row of it holds no text, or it is damaged.
    """
    manifest = Manifest(manifest_uri, ("uri",), (), "one column `uri`")
    for row, values in enumerate(manifest.rows(file)):
        yield _text_of(values, "uri", manifest_uri, row)


def _open_parquet(file: BinaryIO) -> pq.ParquetFile:
    # Its columns are read in turn, each with a buffer of its own: one for all would be read anew at
    # every turn.
    source = file.raw if isinstance(file, io.BufferedReader) else file
    return pq.ParquetFile(source, pre_buffer=False, buffer_size=_BUFFER_BYTES)


class Named(NamedTuple):
    """An image as a manifest names it.

    Attributes:
        uri: As it stands there.
        version: Of the object; None where it is to be looked up, as all that follows.
        num_bytes: Of the image.
        offset: Where in a tar it begins; None where it is an object of its own.
    """

    uri: str
    version: str | None = None
    num_bytes: int | None = None
    offset: int | None = None


def manifest_entries(file: BinaryIO, manifest_uri: str, *, trusted: bool) -> Iterator[Named]:
    """Read what a manifest names.

    Args:
        file: The manifest, which is read in parts.
        manifest_uri: Where it is, whose ending names the format.
        trusted: Whether to read `etag`, `num_bytes` and `image_offset`, too, which may be null.

    Raises:
        InputError: As `manifest_uris`, and a number of bytes is none.
    """
    if not trusted:
        yield from map(Named, manifest_uris(file, manifest_uri))
        return
    columns = ("uri", "etag", "num_bytes")
    needs = "one column each of `uri`, `etag` and `num_bytes` (trust_manifest)"
    manifest = Manifest(manifest_uri, columns, ("image_offset",), needs, texts=("etag",))
    for row, values in enumerate(manifest.rows(file)):
        yield _trusted(values, manifest_uri, row)


def _trusted(values: Row, manifest_uri: str, row: int) -> Named:
    uri = _text_of(values, "uri", manifest_uri, row)
    # A CSV has no other null than nothing.
    known = {name: None if value == "" else value for name, value in values.items()}
    etag, offset = known["etag"], known.get("image_offset")
    if etag is None and known["num_bytes"] is None:
        return Named(uri)
    size = _size_of(known["num_bytes"], "num_bytes", manifest_uri, row)
    version = etag_of({"ETag": _text_of(values, "etag", manifest_uri, row)})
    if not version:
        raise InputError(f"manifest {manifest_uri}, row {row}: etag is {etag!r}, not a text")
    if offset is None:
        return Named(uri, version, size)
    return Named(uri, version, size, _offset_of(uri, offset, manifest_uri, row))


def _offset_of(uri: str, offset: Any, manifest_uri: str, row: int) -> int:
    number = _size_of(offset, "image_offset", manifest_uri, row)
    if not is_tar(container_of(uri)):
        raise InputError(
            f"manifest {manifest_uri}, row {row}: image_offset is {offset}, and {uri!r} is in no "
            "tar (TAR!/MEMBER); leave the offset empty"
        )
    return number


def _size_of(value: Any, column: str, manifest_uri: str, row: int) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise InputError(
            f"manifest {manifest_uri}, row {row}: {column} is {value!r}, no number of bytes"
        )
    return value


def _text_of(values: Row, column: str, manifest_uri: str, row: int) -> str:
    value = values[column]
    if isinstance(value, bytes):
        # As Parquet has texts whose writer did not say that they are.
        with suppress(UnicodeDecodeError):
            value = value.decode()
    if not isinstance(value, str) or not value.strip() or not is_utf8(value):
        raise InputError(f"manifest {manifest_uri}, row {row}: {column} is {value!r}, not a text")
    return value


@dataclass(frozen=True)
class Manifest:
    """A manifest and what is read of it.

    Attributes:
        uri: Where it is.
        needed: Columns that it must have, once each.
        wanted: Columns that it may have.
        needs: The needed ones in words, for the message.
        texts: Columns of which a CSV holds no numbers, even where all are digits.
    """

    uri: str
    needed: Sequence[str]
    wanted: Sequence[str]
    needs: str
    texts: Sequence[str] = ()

    def rows(self, file: BinaryIO) -> Iterator[Row]:
        """Read the rows; a value that is not there is None.

        Args:
            file: The manifest, which is read in parts.

        Raises:
            InputError: It lacks a column, or is damaged.
        """
        readers = {".parquet": self._parquet, ".csv": self._csv}
        with self._readable():
            yield from readers.get(self._ending, self._json_lines)(file)

    def names(self, file: BinaryIO) -> list[str]:
        """Read the names of all columns; of JSON lines, those of the first.

        Args:
            file: The manifest, which is read in parts.

        Raises:
            InputError: It is damaged.
        """
        with self._readable():
            if self._ending == ".parquet":
                return list(_open_parquet(file).schema_arrow.names)
            if self._ending == ".csv":
                return next(csv.reader(self._text(file), strict=True), [])
            first = next((line for line in self._text(file) if line.strip()), "{}")
            row = json.loads(first)
            return list(row) if isinstance(row, dict) else []

    @property
    def _ending(self) -> str:
        return os.path.splitext(self.uri)[1].lower()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except UnicodeDecodeError as error:
            raise InputError(
                f"manifest {self.uri} can't be read: it is no text in UTF-8 (there is a byte "
                f"0x{error.object[error.start]:02x}); save it as UTF-8"
            ) from error
        except (pa.ArrowException, OSError, ValueError, RecursionError, csv.Error) as error:
            raise InputError(f"manifest {self.uri} can't be read: {error}") from error

    def _parquet(self, file: BinaryIO) -> Iterator[Row]:
        table = _open_parquet(file)
        hint = ""
        if image_columns(table.schema_arrow):
            hint = "; if its rows hold images, input_form=parquet labels them"
        columns = self._columns(table.schema_arrow.names, hint)
        for batch in table.iter_batches(_ROWS_AT_A_TIME, columns=columns, use_threads=False):
            yield from batch.to_pylist()

    def _csv(self, file: BinaryIO) -> Iterator[Row]:
        # A field may be as long as a document; Python's limit is one for the whole process.
        csv.field_size_limit(sys.maxsize)
        lines = csv.reader(self._text(file), strict=True)
        names = next(lines, [])
        places = {name: names.index(name) for name in self._columns(names)}
        for line in lines:
            if line:
                yield {
                    name: self._value(name, line[place]) if place < len(line) else None
                    for name, place in places.items()
                }

    def _json_lines(self, file: BinaryIO) -> Iterator[Row]:
        columns: list[str] = []
        for number, line in enumerate(self._text(file)):
            if not line.strip():
                continue
            row = json.loads(line)
            if not isinstance(row, dict):
                raise pa.ArrowInvalid(f"line {number + 1} holds a {type(row).__name__}, no object")
            columns = columns or self._columns(list(row))
            yield {name: row.get(name) for name in (*self.needed, *self.wanted)}

    def _text(self, file: BinaryIO) -> io.TextIOWrapper:
        start = file.read(max(len(mark) for marks in _OTHER_ENCODINGS.values() for mark in marks))
        file.seek(0)
        for name, marks in _OTHER_ENCODINGS.items():
            if start.startswith(marks):
                raise ValueError(f"it is {name}; save it as UTF-8")
        return io.TextIOWrapper(file, "utf-8-sig", newline="")

    def _columns(self, names: list[str], hint: str = "") -> list[str]:
        if any(names.count(name) != 1 for name in self.needed):
            there = ", ".join(names)
            raise InputError(f"manifest {self.uri} needs {self.needs}; it has {there}{hint}")
        return [*self.needed, *(name for name in self.wanted if name in names)]

    def _value(self, name: str, text: str) -> str | int:
        """Read what a field holds: a column of numbers is no column of names."""
        return int(text) if text.isdecimal() and name not in self.texts else text
