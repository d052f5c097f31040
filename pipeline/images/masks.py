"""Class indices to PNG and back: pure functions.

The file is an 8-bit palette PNG: a pixel's value is its class index and the palette holds the
class colours, so that one file serves programs (indices) and people (colours).
"""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Importing it also lifts Pillow's own limit on pixels: a mask is as large as its image.
from pipeline.images.decode import DAMAGE

IGNORE_INDEX = 255
# The colour that PASCAL VOC gives its void pixels.
IGNORE_COLOR = (224, 224, 192)


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


def encode_mask(mask: NDArray[np.uint8], palette: bytes, compress_level: int) -> bytes:
    """Encode class indices as a palette PNG.

    Args:
        mask: Class indices, uint8 of shape (H, W).
        palette: 768 bytes from `make_palette`.
        compress_level: zlib level, 0 (none) to 9 (smallest); pixels do not depend on it.

    Returns:
        The PNG file; the same arguments give the same bytes.
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
        ValueError: The file is no 8-bit palette PNG.
    """
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            mode, mask = image.mode, np.asarray(image)
    except DAMAGE as error:
        raise ValueError(f"no readable PNG: {str(error) or type(error).__name__}") from error
    if mode != "P":
        raise ValueError(f"the PNG has mode {mode}, a mask has mode P")
    return mask
