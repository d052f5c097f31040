"""A source: one image to be planned; and what is an image by its name."""

import os
from dataclasses import dataclass

from pipeline.errors import ErrorCode
from pipeline.store.extent import Extent

# A file with one of these endings is planned, also where the decoder does not read the format:
# then its row says so. Others (checksums, thumbnails' databases, notes) are not images.
IMAGE_ENDINGS = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff"),
        *(".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".heics", ".heifs", ".avif", ".avifs"),
        *(".jp2", ".j2k", ".j2c", ".jpf", ".jpx", ".jls", ".jxl", ".jxr", ".ppm", ".pgm", ".pbm"),
        *(".pnm", ".tga", ".ico", ".psd"),
        # Raw photographs, of all makers.
        *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf"),
        *(".rw2", ".pef", ".srw", ".3fr", ".iiq", ".x3f"),
    )
)
# macOS keeps what other file systems have no place for in a file of this name beside each one.
_APPLE_DOUBLE = "._"


@dataclass(frozen=True)
class Source:
    """One image to be planned.

    Attributes:
        key: Its name under the input.
        uri: Where it is.
        version: Of the object that it is, or lies in. None where a manifest names an object that
            can't be looked up; its row will say why.
        num_bytes: Its size; None where it is not known.
        refusal: The code of what is planned as a row without a mask.
        reason: What its row says, where that is more than the code.
        offset: Where in its tar it begins, in bytes; None where it is an object of its own.
    """

    key: str
    uri: str
    version: str | None
    num_bytes: int | None
    refusal: ErrorCode | None = None
    reason: str | None = None
    offset: int | None = None

    @property
    def place(self) -> Extent:
        """Where its bytes lie."""
        return Extent.of_image(
            {"uri": self.uri, "image_offset": self.offset, "num_bytes": self.num_bytes}
        )


def is_image(key: str) -> bool:
    """Return whether a name is that of an image, by its ending."""
    name = os.path.basename(key)
    return os.path.splitext(name)[1].lower() in IMAGE_ENDINGS and not name.startswith(_APPLE_DOUBLE)


def readable_name(name: str) -> str:
    """Write a name so that it can stand in a table: what is no UTF-8 is escaped, byte by byte."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
