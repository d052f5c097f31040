"""Class indices to PNG and back: pure functions.

The file is an 8-bit palette PNG: a pixel's value is its class index and the palette holds the
class colours, so that one file serves programs (indices) and people (colours). Or it is an 8-bit
grey PNG of the same values, for programs that make colours of a palette.
"""

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from zlib_ng import zlib_ng

# Importing it also lifts Pillow's own limit on pixels: a mask is as large as its image.
from pipeline.images.damage import DAMAGE

IGNORE_INDEX = 255
# The colour that PASCAL VOC gives its void pixels.
IGNORE_COLOR = (224, 224, 192)

# Up to this level a row is packed by its runs alone (RFC 1951 with distance 1): masks are runs, and
# without a table of what came before, the bytes depend on nothing but the pixels.
_RUNS_LEVEL = 1

# PNG specification, 5.2 and 11.2.2.
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DEPTH, _GREY, _PALETTE = 8, 0, 3
_MODES = ("P", "L")


class UnreadableMask(ValueError):
    """A mask file that is no PNG, or a damaged one."""


def make_palette(colours: Sequence[tuple[int, int, int]]) -> bytes:
    """Lay out the palette of a mask.

    Args:
        colours: RGB per class, in order of the class index, values 0 to 255; at most 255 of them.

    Returns:
        768 bytes: 256 RGB triples, black where there is no class, `IGNORE_COLOR` at 255.
    """
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(colours)] = colours
    palette[IGNORE_INDEX] = IGNORE_COLOR
    return palette.tobytes()


def encode_mask(mask: NDArray[np.uint8], palette: bytes | None, compress_level: int) -> bytes:
    """Encode class indices as a palette PNG, or a grey one.

    Args:
        mask: Class indices, uint8 of shape (H, W).
        palette: 768 bytes from `make_palette`; None makes a grey PNG.
        compress_level: 0 (stored), 1 (runs of one value: fast) or zlib-ng's 2 to 9 (smaller and
            slower). Pixels do not depend on it.

    Returns:
        The PNG file. The same arguments give the same bytes: up to level 1 on every machine, from
        level 2 on with the same zlib-ng on processors of one kind.
    """
    height, width = mask.shape
    # Each row begins with its filter: 0, none. Filters are for gradients, which masks have not.
    rows = np.zeros((height, width + 1), np.uint8)
    rows[:, 1:] = mask
    kind = _GREY if palette is None else _PALETTE
    chunks = (
        _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, _DEPTH, kind, 0, 0, 0)),
        b"" if palette is None else _chunk(b"PLTE", palette),
        _chunk(b"IDAT", _deflate(rows, compress_level)),
        _chunk(b"IEND", b""),
    )
    return _SIGNATURE + b"".join(chunks)


def _deflate(rows: NDArray[np.uint8], level: int) -> bytes:
    strategy = zlib_ng.Z_RLE if level <= _RUNS_LEVEL else zlib_ng.Z_DEFAULT_STRATEGY
    packer = zlib_ng.compressobj(level, strategy=strategy)
    return packer.compress(rows) + packer.flush()


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(content)), kind, content, struct.pack(">I", checksum)))


def encode_mask_by_pillow(mask: NDArray[np.uint8], palette: bytes, compress_level: int) -> bytes:
    """Encode class indices by Pillow alone: what `encode_mask` must be read as.

    Args:
        mask: As for `encode_mask`.
        palette: As for `encode_mask`.
        compress_level: zlib's, 0 (none) to 9 (smallest).

    Returns:
        The PNG file; its bytes depend on the machine's zlib.
    """
    image = Image.fromarray(mask)
    image.putpalette(palette)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=compress_level)
    return buffer.getvalue()


def decode_mask(png: bytes) -> NDArray[np.uint8]:
    """Read the class indices of a mask file.

    Args:
        png: A file from `encode_mask`.

    Returns:
        Class indices, uint8 of shape (H, W).

    Raises:
        UnreadableMask: The file is no PNG, or damaged.
        ValueError: It is neither a palette PNG nor a grey one.
    """
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            mode, mask = image.mode, np.asarray(image)
    except DAMAGE as error:
        # Pillow names the buffer by its address.
        known = not isinstance(error, UnidentifiedImageError) and str(error)
        raise UnreadableMask(f"no readable PNG: {known or type(error).__name__}") from error
    if mode not in _MODES:
        raise ValueError(f"the PNG has mode {mode}, a mask has mode {' or '.join(_MODES)}")
    return mask


def coloured(png: bytes, palette: bytes) -> bytes:
    """Return a mask file as a palette PNG: as it is, if it is one.

    Args:
        png: A file from `encode_mask`.
        palette: 768 bytes from `make_palette`.

    Raises:
        ValueError: As `decode_mask`.
    """
    # PNG specification, 11.2.2: the colour type is the byte 9 bytes into the IHDR, which is first.
    if png[25:26] == bytes([_PALETTE]):
        return png
    return encode_mask(decode_mask(png), palette, _RUNS_LEVEL)
