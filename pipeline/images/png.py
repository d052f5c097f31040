"""PNG: the chunks that decide the pixels, checked and handed on without the others.

What an ancillary chunk holds (texts, profiles, dates) is neither unpacked nor believed, so it
can't cost a whole picture. Checksums of critical chunks are compared, as libpng does and Pillow
does not.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from zlib_ng import zlib_ng

from pipeline.errors import ErrorCode, ImageError

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
# PNG specification, 11.3.1.1: ancillary by its name, but it decides what is seen.
_TRANSPARENCY = b"tRNS"
_EXIF = b"eXIf"
_APPLE = b"CgBI"
_READ = (b"IHDR", b"PLTE", _TRANSPARENCY, _EXIF)

# Each chunk costs time whatever it holds. Encoders write chunks of 8 KiB and more.
_MAX_CHUNKS = 1 << 16

GREY, _RGB, PALETTE = 0, 2, 3
_CHANNELS = {GREY: 1, _RGB: 3, PALETTE: 1, 4: 2, 6: 4}
# PNG specification, 8.2: first row and column of each pass, and the steps from there.
_ADAM7 = (
    *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2)),
    *((0, 1, 2, 2), (1, 0, 2, 1)),
)
_AT_A_TIME = 1 << 20
_TRANSPARENT_BYTES = {GREY: (2,), _RGB: (6,), PALETTE: range(1, 257)}
_HEADER_BYTES = 13


@dataclass(frozen=True)
class Png:
    """A PNG without what does not decide its pixels.

    Attributes:
        data: The file with its critical chunks; with tRNS if it has a palette.
        depth: Bits per sample.
        colour_type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA.
        transparent: The sample, or the three, that are transparent; None without.
        exif: The content of eXIf.
        num_colours: Number of colours of the palette.
    """

    data: bytes
    depth: int
    colour_type: int
    transparent: tuple[int, ...] | None
    exif: bytes | None
    num_colours: int


def read_size(data: bytes) -> tuple[int, int]:
    """Read (height, width) from the header.

    Args:
        data: The file.

    Raises:
        ImageError: truncated or corrupt.
    """
    header = data[len(SIGNATURE) : len(SIGNATURE) + 8 + _HEADER_BYTES]
    if len(header) < 8 + _HEADER_BYTES:
        raise ImageError(
            ErrorCode.TRUNCATED, f"PNG of {len(data)} bytes ends early: its header is incomplete"
        )
    length, kind, width, height = struct.unpack(">I4sII", header[:16])
    if kind == _APPLE:
        raise ImageError(
            ErrorCode.UNSUPPORTED_MODE, "PNG in Apple's own form (CgBI); convert it to PNG"
        )
    if (length, kind) != (_HEADER_BYTES, b"IHDR"):
        raise ImageError(ErrorCode.CORRUPT, f"PNG: starts with {kind!r} and not with its header")
    return height, width


def read_png(data: bytes) -> Png:
    """Read the chunks of a PNG.

    Args:
        data: The file.

    Raises:
        ImageError: truncated, corrupt, unsupported_mode or too_slow.
    """
    kept: list[bytes | memoryview] = [SIGNATURE]
    contents: dict[bytes, bytes] = {}
    order = _Order()
    for kind, content, raw in _chunks(data):
        if not order.counts(kind, content):
            continue
        if kind in _READ:
            contents[kind] = bytes(content)
        if kind in _CRITICAL or (kind == _TRANSPARENCY and order.has_palette):
            kept.append(raw)
    depth, colour_type = contents[b"IHDR"][8:10]
    return Png(
        data=b"".join(kept),
        depth=depth,
        colour_type=colour_type,
        transparent=_transparent(contents.get(_TRANSPARENCY), depth, colour_type),
        exif=contents.get(_EXIF),
        num_colours=len(contents.get(b"PLTE", b"")) // 3,
    )


class _Order:
    """Where chunks may stand (PNG specification, 5.6), and which of those elsewhere count.

    As libpng has it: what decides the pixels and stands elsewhere is an error, and tRNS, eXIf and
    the palettes that RGB may suggest are passed over there. So is a tRNS of more colours than there
    are.
    """

    def __init__(self) -> None:
        self._before: set[bytes] = set()
        self._last = b""
        self._num_colours = 0
        self.has_palette = False

    def counts(self, kind: bytes, content: memoryview) -> bool:
        """Return whether a chunk counts, of which each is asked for once, in their order.

        Args:
            kind: The kind of the chunk.
            content: Of it.

        Raises:
            ImageError: corrupt.
        """
        before, last = kind in self._before, self._last
        self._before.add(kind)
        self._last = kind
        if kind == b"IHDR":
            _check_header(content, again=before)
            self.has_palette = content[9] == PALETTE
        if kind == b"IDAT":
            if before and last != b"IDAT":
                raise ImageError(ErrorCode.CORRUPT, "PNG: its data are interrupted")
            if self.has_palette and b"PLTE" not in self._before:
                raise ImageError(ErrorCode.CORRUPT, "PNG: without a palette before its data")
        if kind == b"PLTE":
            return self._counts_as_palette(len(content), again=before)
        if kind == _TRANSPARENCY:
            beyond = self.has_palette and len(content) > self._num_colours
            return not before and not beyond and b"IDAT" not in self._before
        return kind != _EXIF or not before

    def _counts_as_palette(self, num_bytes: int, *, again: bool) -> bool:
        if not self.has_palette:
            return False
        if again or b"IDAT" in self._before or num_bytes % 3 or not num_bytes:
            raise ImageError(
                ErrorCode.CORRUPT, f"PNG: a palette of {num_bytes} bytes, or not its only one"
            )
        self._num_colours = num_bytes // 3
        return True


def _check_header(content: memoryview, *, again: bool) -> None:
    """Refuse a second header, and methods that the specification (11.2.2) does not have."""
    if again:
        raise ImageError(ErrorCode.CORRUPT, "PNG: a second header")
    compression, filtering, interlace = content[10:13]
    if compression or filtering or interlace > 1:
        raise ImageError(
            ErrorCode.UNSUPPORTED_MODE,
            f"PNG of compression {compression}, filter {filtering}, interlace {interlace}; the "
            "specification has 0, 0, and 0 or 1",
        )


def check_whole(png: Png) -> None:
    """Refuse a PNG whose data end in order before its last row, which Pillow leaves at 0.

    Args:
        png: The picture.

    Raises:
        ImageError: truncated.
    """
    expected = _num_bytes(png)
    unpacker, found = zlib_ng.decompressobj(), 0
    for kind, content, _ in _chunks(png.data):
        packed: bytes | memoryview = content if kind == b"IDAT" else b""
        while packed and found < expected and not unpacker.eof:
            found += len(unpacker.decompress(packed, _AT_A_TIME))
            packed = unpacker.unconsumed_tail
    if found < expected:
        raise ImageError(
            ErrorCode.TRUNCATED, f"PNG ends early: its data hold {found} of {expected} bytes"
        )


def _num_bytes(png: Png) -> int:
    """Count the bytes of all rows, each with its filter (PNG specification, 7.2 and 8.2)."""
    width, height = struct.unpack(">II", png.data[16:24])
    bits = png.depth * _CHANNELS[png.colour_type]
    total = 0
    for top, left, down, across in _ADAM7 if is_interlaced(png) else ((0, 0, 1, 1),):
        rows, columns = -(-(height - top) // down), -(-(width - left) // across)
        if rows > 0 and columns > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total


def is_interlaced(png: Png) -> bool:
    """Return whether the rows come in seven passes."""
    return png.data[28] != 0


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, memoryview]]:
    """Walk over the chunks that can be believed: kind, content and all of its bytes."""
    place, view = len(SIGNATURE), memoryview(data)
    for _ in range(_MAX_CHUNKS):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        kind = data[place + 4 : place + 8]
        if end > len(data) or len(kind) < 4:
            raise ImageError(
                ErrorCode.TRUNCATED,
                f"PNG of {len(data)} bytes ends early: image file is truncated in {kind!r}",
            )
        raw = view[place:end]
        if _is_believed(kind, raw):
            yield kind, raw[8:-4], raw
        if kind == b"IEND":
            return
        place = end
    raise ImageError(
        ErrorCode.TOO_SLOW, f"PNG of more than {_MAX_CHUNKS} chunks; save it anew with larger ones"
    )


def _is_believed(kind: bytes, raw: memoryview) -> bool:
    """Whether a chunk's checksum is right. Raises ImageError if the picture needs the chunk."""
    needed = kind in _CRITICAL or kind == _TRANSPARENCY
    if not needed and kind[:1].isupper():
        raise ImageError(ErrorCode.CORRUPT, f"PNG: unknown critical chunk {kind!r}")
    if not needed and kind != _EXIF:
        return True
    right = zlib_ng.crc32(raw[4:-4]) == int.from_bytes(raw[-4:], "big")
    if needed and not right:
        raise ImageError(ErrorCode.CORRUPT, f"PNG: bad checksum in {kind!r}")
    return right


def _transparent(content: bytes | None, depth: int, colour_type: int) -> tuple[int, ...] | None:
    # Where pixels have an alpha of their own it means nothing.
    if content is None or colour_type not in _TRANSPARENT_BYTES:
        return None
    if len(content) not in _TRANSPARENT_BYTES[colour_type]:
        raise ImageError(
            ErrorCode.CORRUPT,
            f"PNG: transparency of {len(content)} bytes does not fit colour type {colour_type}",
        )
    if colour_type == PALETTE:
        return None
    # PNG specification, 11.3.1.1: two bytes per sample, of which the sample's own bits count.
    values = np.frombuffer(content, ">u2") & ((1 << depth) - 1)
    return tuple(int(value) for value in values)


def over_white(
    png: Png, pixels: NDArray[np.uint8], samples: NDArray[np.uint16]
) -> NDArray[np.uint8]:
    """Make the pixels of a PNG's transparent colour white.

    Args:
        png: Its transparent colour.
        pixels: RGB of shape (H, W, 3).
        samples: What the file holds, of shape (H, W) for grey, (H, W, 3) for RGB. Grey of fewer
            than 8 bits is spread over the range.

    Returns:
        RGB of shape (H, W, 3).
    """
    assert png.transparent is not None, "there is no transparent colour"
    if png.colour_type == GREY:
        [value] = png.transparent
        spread = value * 255 // ((1 << png.depth) - 1) if png.depth < 8 else value
        hit = samples == spread
    else:
        hit = (samples == np.array(png.transparent)).all(axis=-1)
    return np.where(hit[..., np.newaxis], np.uint8(255), pixels)


def needs_samples(png: Png) -> bool:
    """Return whether 8 bits are too few to find the transparent colour: RGB of 16 bits."""
    return png.transparent is not None and png.colour_type == _RGB and png.depth == 16


def decode_samples(png: Png) -> NDArray[np.uint16]:
    """Decode a PNG to the samples that it holds.

    Args:
        png: RGB of 16 bits.

    Returns:
        uint16 of shape (H, W, 3).
    """
    samples: NDArray[np.uint16] = imagecodecs.png_decode(png.data)
    return samples[..., :3]
