"""Where bytes lie: an object, consecutive bytes of one, or a value in a Parquet file.

An image in a tar has the URI `<tar>!/<member>`, as Java's JarURLConnection and Apache Commons VFS
write it, and one in a Parquet file `<file>!/<column>/<row>`.
"""

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

_INSIDE = "!/"
# Rows have nine digits at least, so that their names are in their order; each has one name.
_CELL = re.compile(
    r"\.parquet!/(?P<column>[^/]+)/(?P<row>[0-9]{9}|[1-9][0-9]{9,})\Z", re.IGNORECASE
)
# What may stand in a column's name and has another meaning in a URI is percent-encoded.
_SAFE = "".join(mark for mark in string.punctuation + " " if mark not in "%!/")


class Cell(NamedTuple):
    """A value in a Parquet file.

    Attributes:
        column: The name of its column.
        row: The number of its row in the file, from 0.
    """

    column: str
    row: int


@dataclass(frozen=True)
class Extent:
    """An object, or a part of one.

    Attributes:
        uri: The object.
        offset: Bytes of the object before the part; None for the whole object.
        num_bytes: Number of bytes of the part; None for the whole object.
        cell: Which value of a Parquet file it is, which `cells.read_image` reads; None for bytes.
    """

    uri: str
    offset: int | None = None
    num_bytes: int | None = None
    cell: Cell | None = None

    @staticmethod
    def of_mask(row: Mapping[str, Any]) -> "Extent":
        """Return where a row says that its mask lies.

        Args:
            row: With `mask_uri`; `mask_offset` and `mask_bytes` are null, or missing, where the
                mask is an object of its own.
        """
        return Extent(row["mask_uri"], row.get("mask_offset"), row.get("mask_bytes"))

    @staticmethod
    def of_image(row: Mapping[str, Any]) -> "Extent":
        """Return where a row says that its image lies.

        Args:
            row: A row with `uri`; `image_offset` is null, or missing, where the image is an object
                of its own, or lies in a Parquet file. For an image in a tar, `num_bytes` is its
                size.
        """
        offset = row.get("image_offset")
        if offset is None:
            return _cell_or_object(row["uri"])
        return Extent(container_of(row["uri"]), offset, row["num_bytes"])

    @property
    def span(self) -> range | None:
        """The bytes of the object that it is; None for all of them."""
        if self.offset is None or self.num_bytes is None:
            return None
        return range(self.offset, self.offset + self.num_bytes)

    @property
    def is_whole(self) -> bool:
        """Whether it is an object of its own."""
        return self.offset is None and self.cell is None

    def __str__(self) -> str:
        """Name it for a person."""
        if self.cell is not None:
            return f"{self.uri} (row {self.cell.row} of {self.cell.column})"
        if self.span is None:
            return self.uri
        return f"{self.uri} (bytes {self.span.start} to {self.span.stop - 1})"


def _cell_or_object(uri: str) -> Extent:
    found = _CELL.search(uri)
    if found is None:
        return Extent(uri)
    return Extent(container_of(uri), cell=Cell(unquote(found["column"]), int(found["row"])))


def cell_name(column: str, row: int) -> str:
    """Name a value in a Parquet file, for `uri_inside` and `key_inside`.

    Args:
        column: The name of its column.
        row: The number of its row, from 0.
    """
    quoted = quote(column, _SAFE)
    # A path takes these for folders.
    quoted = quoted.replace(".", "%2E") if quoted in (".", "..") else quoted
    return f"{quoted}/{row:09}"


def place_of(row: Mapping[str, Any]) -> str:
    """Return the place of an image without its scheme, which ends in its key.

    Args:
        row: A row as `Extent.of_image` takes it.
    """
    uri: str = row["uri"]
    if row.get("image_offset") is not None or _CELL.search(uri):
        uri = key_inside(container_of(uri), member_of(uri))
    return uri.partition("://")[2].lstrip("/")


def uri_inside(container_uri: str, member: str) -> str:
    """Name what lies in an object.

    Args:
        container_uri: The object.
        member: Its name there, from `member_name`.
    """
    return container_uri + _INSIDE + member


def member_name(name: str) -> str:
    """Write a name in an object so that a URI can be taken apart at its last `!/`."""
    return name.replace(_INSIDE, "%21/")


def container_of(uri: str) -> str:
    """Return the object that a URI from `uri_inside` names a part of."""
    return uri.rpartition(_INSIDE)[0]


def member_of(uri: str) -> str:
    """Return the name in its object of what a URI from `uri_inside` names."""
    return uri.rpartition(_INSIDE)[2]


def key_inside(container_key: str, member: str) -> str:
    """Name what lies in an object by its key: in the same order as by the URI's place.

    Args:
        container_key: Of the object.
        member: The name as `uri_inside` takes it.
    """
    return f"{container_key}/{member}"
