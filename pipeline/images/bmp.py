"""BMP: opened by Pillow, with the palette that the file has.

Pillow drops a palette of greys, or of black and white, and then takes the indices for shades,
which they are at some depths only.
"""

import io
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import ErrorCode, ImageError
from pipeline.images.bmp_runs import decode_runs
from pipeline.images.colour import to_rgb
from pipeline.images.opening import open_picture

_FILE_HEADER_BYTES = 14
# BITMAPCOREHEADER; all later headers begin as BITMAPINFOHEADER does.
_CORE_HEADER_BYTES = 12
_WITH_ALPHA_MASK_BYTES = 56
_BITFIELDS = 3
_BITS_OF_RUNS = {1: 8, 2: 4}
_MAX_PALETTE_BITS = 8
# No grey, so that Pillow keeps the palette.
_A_COLOUR = b"\x01\x02\x03"


@dataclass(frozen=True)
class _Header:
    """What the headers of a BMP say.

    Attributes:
        offset: The offset of the pixels in the file.
        num_bytes: Number of bytes of the second header; the palette is behind it.
        bits: Per pixel.
        num_colours: Number of colours of the palette.
        alpha_mask: Which bits of a pixel are alpha, where it says.
        has_runs: Whether pixels are run-length encoded.
    """

    offset: int
    num_bytes: int
    bits: int
    num_colours: int
    alpha_mask: int
    has_runs: bool = False

    @property
    def entry_bytes(self) -> int:
        return 3 if self.num_bytes == _CORE_HEADER_BYTES else 4


class BmpPicture:
    """A BMP of which the header is read."""

    def __init__(self, data: bytes) -> None:
        """Read the header.

        Args:
            data: The file.

        Raises:
            ImageError: It is of a kind that is not read.
        """
        self._data = data
        self._image = open_picture(data, "BMP")
        self._header = _read_header(data)
        if self._header.offset < _FILE_HEADER_BYTES + self._header.num_bytes:
            raise ImageError(
                ErrorCode.CORRUPT, f"BMP: pixels at byte {self._header.offset}, in the header"
            )
        if self._header.bits == 16 and self._header.alpha_mask:
            raise ImageError(
                ErrorCode.UNSUPPORTED_MODE, "BMP of 16 bits with alpha; convert it to PNG"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as stored."""
        return self._image.height, self._image.width

    @property
    def orientation(self) -> object:
        """A BMP says nothing of it."""
        return None

    def decode(self) -> NDArray[np.uint8]:
        """Decode to RGB of shape (H, W, 3)."""
        if self._header.bits <= _MAX_PALETTE_BITS:
            return self._looked_up()
        self._image.load()
        return np.asarray(to_rgb(_with_alpha_of_use(self._image)))

    def _looked_up(self) -> NDArray[np.uint8]:
        start = _FILE_HEADER_BYTES + self._header.num_bytes
        end = start + self._header.entry_bytes * self._header.num_colours
        # The pixels may begin before the palette that is announced has ended.
        palette = np.frombuffer(self._data[start : min(end, self._header.offset)], np.uint8)
        entries = palette[: len(palette) // self._header.entry_bytes * self._header.entry_bytes]
        colours = entries.reshape(-1, self._header.entry_bytes)[:, 2::-1]
        indices = self._indices(start)
        if indices.max() >= len(colours):
            raise ImageError(
                ErrorCode.CORRUPT, f"BMP: colour {indices.max()} of a palette of {len(colours)}"
            )
        rgb: NDArray[np.uint8] = colours[indices]
        return rgb

    def _indices(self, palette_start: int) -> NDArray[np.uint8]:
        if self._header.has_runs:
            runs = self._data[self._header.offset :]
            # The lowest row comes first.
            return decode_runs(runs, self._header.bits, self.size)[::-1]
        if self._image.mode != "P":
            end = palette_start + len(_A_COLOUR)
            kept = self._data[:palette_start], self._data[end:]
            self._image = open_picture(_A_COLOUR.join(kept), "BMP")
        self._image.load()
        return np.asarray(self._image)


def _read_header(data: bytes) -> _Header:
    """Read the headers, of which Pillow has taken what it knows."""
    [offset] = struct.unpack("<10xI", data[:_FILE_HEADER_BYTES])
    fields = io.BytesIO(data[_FILE_HEADER_BYTES : _FILE_HEADER_BYTES + _WITH_ALPHA_MASK_BYTES])
    [num_bytes] = struct.unpack("<I", fields.read(4))
    if num_bytes == _CORE_HEADER_BYTES:
        [bits] = struct.unpack("<6xH", fields.read(8))
        return _Header(offset, num_bytes, bits, 1 << bits, 0)
    height, bits, compression, used = struct.unpack("<4xi2xHI12xI", fields.read(32))
    masked = num_bytes >= _WITH_ALPHA_MASK_BYTES and compression == _BITFIELDS
    [alpha_mask] = struct.unpack("<16xI", fields.read(20).ljust(20, b"\0")) if masked else [0]
    if bits != _BITS_OF_RUNS.get(compression, bits):
        raise ImageError(ErrorCode.CORRUPT, f"BMP: runs of compression {compression}, {bits} bits")
    if compression in _BITS_OF_RUNS and height < 0:
        raise ImageError(ErrorCode.CORRUPT, "BMP: runs from the top down, which there are not")
    num_colours = used or 1 << min(bits, _MAX_PALETTE_BITS)
    return _Header(offset, num_bytes, bits, num_colours, alpha_mask, compression in _BITS_OF_RUNS)


def _with_alpha_of_use(image: Image.Image) -> Image.Image:
    """Leave out alpha that is 0 everywhere: nobody has ever set it."""
    if image.mode != "RGBA":
        return image
    unused = image.getchannel("A").getextrema() == (0, 0)
    return image.convert("RGB") if unused else image
