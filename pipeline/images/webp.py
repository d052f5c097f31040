"""WebP: its size, read before Pillow is asked, which makes room for all of its canvas to tell it.

RIFF container and chunks: https://developers.google.com/speed/webp/docs/riff_container; the frame
header of VP8: RFC 6386, section 9.1; that of VP8L: WebP Lossless Bitstream, section 3.
"""

from collections.abc import Callable

_HEADER_BYTES = 30
_SIDE_BITS = 14


def read_webp_size(data: bytes) -> tuple[int, int] | None:
    """Read (height, width) from the header; None if it is not one that is known.

    Args:
        data: The file.
    """
    read = _READERS.get(data[12:16])
    return read(data) if read is not None and len(data) >= _HEADER_BYTES else None


def _of_canvas(data: bytes) -> tuple[int, int] | None:
    width, height = (int.from_bytes(data[place : place + 3], "little") + 1 for place in (24, 27))
    return height, width


def _of_lossy(data: bytes) -> tuple[int, int] | None:
    if data[23:26] != b"\x9d\x01\x2a":
        return None
    sides = (int.from_bytes(data[place : place + 2], "little") for place in (26, 28))
    # Above a side stands how it is to be enlarged.
    width, height = (side & ((1 << _SIDE_BITS) - 1) for side in sides)
    return height, width


def _of_lossless(data: bytes) -> tuple[int, int] | None:
    if data[20] != 0x2F:
        return None
    bits = int.from_bytes(data[21:25], "little")
    most = (1 << _SIDE_BITS) - 1
    return (bits >> _SIDE_BITS & most) + 1, (bits & most) + 1


_READERS: dict[bytes, Callable[[bytes], tuple[int, int] | None]] = {
    b"VP8X": _of_canvas,
    b"VP8 ": _of_lossy,
    b"VP8L": _of_lossless,
}
