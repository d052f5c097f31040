"""Images as every reader shows them: upright JPEGs and PNGs."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.images.decode import decode_image, read_orientation
from pipeline.images.formats import sniff

_ENDINGS = {"JPEG": "jpg", "PNG": "png"}
_UPRIGHT = 1
_QUALITY = 95
# The run that labelled it had a limit of its own.
_MAX_PIXELS = 1 << 30


def for_readers(data: bytes) -> tuple[bytes, str]:
    """Return an image as a file that every reader shows as `label` has seen it.

    Args:
        data: The image, of any format that is read here.

    Returns:
        The file and its ending without a dot. Upright JPEGs and PNGs are left byte for byte. A
        JPEG that EXIF turns is turned, which most readers leave to others, and saved anew (quality
        95, no subsampling); all else becomes a PNG.

    Raises:
        ImageError: As `decode_image`.
    """
    kind = sniff(data)
    if kind in _ENDINGS and read_orientation(data) == _UPRIGHT:
        return data, _ENDINGS[kind]
    pixels = decode_image(data, _MAX_PIXELS)
    if kind == "JPEG":
        return _encoded(pixels, "JPEG", quality=_QUALITY, subsampling=0), "jpg"
    return as_png(pixels), "png"


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode pixels as PNG.

    Args:
        pixels: RGB of shape (H, W, 3), or grey of shape (H, W).
    """
    return _encoded(pixels, "PNG", compress_level=1)


def _encoded(pixels: NDArray[np.uint8], kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind, **options)
    return buffer.getvalue()
