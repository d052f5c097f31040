"""Where bytes lie: an object, or consecutive bytes of one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Extent:
    """An object, or a part of one.

    Attributes:
        uri: The object.
        offset: Bytes of the object before the part; None for the whole object.
        num_bytes: Number of bytes of the part; None for the whole object.
    """

    uri: str
    offset: int | None = None
    num_bytes: int | None = None

    @staticmethod
    def of_mask(row: Mapping[str, Any]) -> "Extent":
        """Return where a row says that its mask lies.

        Args:
            row: With `mask_uri`; `mask_offset` and `mask_bytes` are null, or missing, where the
                mask is an object of its own.
        """
        return Extent(row["mask_uri"], row.get("mask_offset"), row.get("mask_bytes"))

    @property
    def span(self) -> range | None:
        """The bytes of the object that it is; None for all of them."""
        if self.offset is None or self.num_bytes is None:
            return None
        return range(self.offset, self.offset + self.num_bytes)

    def __str__(self) -> str:
        """Name it for a person."""
        if self.span is None:
            return self.uri
        return f"{self.uri} (bytes {self.span.start} to {self.span.stop - 1})"
