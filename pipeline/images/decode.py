"""Encoded bytes to RGB pixels: pure functions, the same for labelling and training.

The rules, which `DECODER` names in the fingerprint:

* Formats: JPEG, PNG, WebP, TIFF, BMP, by their content and not by their name.
* Of a file with several frames the first is taken.
* The EXIF orientation is applied, once; the mask is the size of the picture as people see it.
* Grey becomes R = G = B. Palettes are looked up. Transparency is laid over white.
* 16 bits per channel become 8 by taking the high byte, for grey as Pillow does it for colour.
* CMYK, YCbCr, HSV and LAB are converted by Pillow's formulas, without colour profiles.
* 32-bit integers and floating point have no defined range: `unsupported_mode`.
"""

import io
import struct
import zlib

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import ErrorCode, ImageError

DECODER = f"rules-1 pillow-{PIL.__version__}"

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")

# `check_num_pixels` compares with the caller's limit before a pixel is decoded. Pillow's own
# limit is one number for the whole process and would stand in the way of a higher one.
Image.MAX_IMAGE_PIXELS = None

# What Pillow's decoders of these formats raise on damaged files, collected by fuzzing
# (tests/pipeline/images/test_decode.py). MemoryError: a header that promises what the file can't
# hold.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    MemoryError,
    NotImplementedError,
    AssertionError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
)

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = 1
_ON_ITS_SIDE = (5, 6, 7, 8)
# Exif 2.32, tag 274: how the stored picture has to be turned to stand upright.
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"RIFF", "WEBP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
)


def read_size(data: bytes) -> tuple[int, int]:
    """Read the stored size from the header, without decoding.

    Args:
        data: The encoded image.

    Returns:
        (height, width) as stored, before the EXIF orientation.

    Raises:
        ImageError: As `decode_image`, as far as the header shows it.
    """
    with _open(data) as image:
        return image.height, image.width


def read_upright_size(data: bytes, max_pixels: int) -> tuple[int, int]:
    """Read the size of an image as people see it.

    Args:
        data: The encoded image.
        max_pixels: The limit on height * width.

    Returns:
        (height, width), that of the image that `decode_image` gives.

    Raises:
        ImageError: As `decode_image`, as far as the header shows it.
    """
    height, width = read_size(data)
    check_num_pixels(height, width, max_pixels)
    return (width, height) if read_orientation(data) in _ON_ITS_SIDE else (height, width)


def read_orientation(data: bytes) -> int:
    """Read how a stored image has to be turned: its EXIF orientation, 1 (upright) to 8.

    Args:
        data: The encoded image.

    Raises:
        ImageError: As `decode_image`.
    """
    with _open(data) as image:
        try:
            return _orientation(image)
        except DAMAGE as error:
            raise _damaged(data, str(image.format), error) from error


def check_num_pixels(height: int, width: int, max_pixels: int) -> None:
    """Refuse an image that is too large. Raises ImageError with code too_many_pixels."""
    if height * width > max_pixels:
        raise ImageError(
            ErrorCode.TOO_MANY_PIXELS,
            f"{height} x {width} = {height * width} pixels, the limit is {max_pixels} "
            "(max_image_pixels)",
        )


def decode_image(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Decode an image to upright RGB.

    Args:
        data: The encoded image.
        max_pixels: The limit on height * width, checked before anything is decoded.

    Returns:
        RGB, uint8 of shape (H, W, 3), C-contiguous and read-only.

    Raises:
        ImageError: unsupported_format, too_many_pixels, truncated, corrupt or unsupported_mode.
    """
    with _open(data) as image:
        check_num_pixels(image.height, image.width, max_pixels)
        try:
            image.load()
            upright = _TRANSPOSES.get(_orientation(image))
            rgb = _to_rgb(image)
        except DAMAGE as error:
            raise _damaged(data, str(image.format), error) from error
        return np.asarray(rgb if upright is None else rgb.transpose(upright))


def _open(data: bytes) -> Image.Image:
    if not data:
        raise ImageError(ErrorCode.TRUNCATED, "the file is empty")
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except PIL.UnidentifiedImageError as error:
        raise _unidentified(data) from error
    except DAMAGE as error:
        raise _damaged(data, _sniff(data) or "image", error) from error


def _orientation(image: Image.Image) -> int:
    found = image.getexif().get(_EXIF_ORIENTATION)
    return found if isinstance(found, int) and found in _TRANSPOSES else _UPRIGHT


def _to_rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode.startswith("I;16"):
        samples = np.asarray(image)
        grey = (samples >> 8).astype(np.uint8)
        grey[samples == image.info.get("transparency", -1)] = 255
        return Image.fromarray(grey).convert("RGB")
    if mode in ("I", "F"):
        raise ImageError(
            ErrorCode.UNSUPPORTED_MODE,
            f"mode {mode}: 32-bit samples have no defined range; convert to 8 or 16 bits",
        )
    try:
        if image.has_transparency_data:
            picture = image.convert("RGBA")
            white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
            return Image.alpha_composite(white, picture).convert("RGB")
        return image.convert("RGB")
    except ValueError as error:
        raise ImageError(ErrorCode.UNSUPPORTED_MODE, f"mode {mode}: {error}") from error


def _sniff(data: bytes) -> str | None:
    for magic, name in _MAGIC:
        if data.startswith(magic) and (name != "WEBP" or data[8:12] == b"WEBP"):
            return name
    return None


def _unidentified(data: bytes) -> ImageError:
    name = _sniff(data)
    if name is None:
        return ImageError(
            ErrorCode.UNSUPPORTED_FORMAT,
            f"starts with {data[:8]!r}, which is none of {', '.join(FORMATS)}",
        )
    try:
        # The plugin itself says why it refused, which Image.open keeps to itself.
        Image.OPEN[name][0](io.BytesIO(data), "")
    except DAMAGE as error:
        if "unknown pixel mode" in str(error) or "Unsupported" in str(error):
            return ImageError(ErrorCode.UNSUPPORTED_MODE, f"{name}: {error}")
        return _damaged(data, name, error)
    return ImageError(ErrorCode.CORRUPT, f"{name}: the header can't be read")


def _damaged(data: bytes, name: str, error: BaseException) -> ImageError:
    reason = str(error) or type(error).__name__
    if _ends_early(data, name) or "truncated" in reason.lower():
        return ImageError(ErrorCode.TRUNCATED, f"{name} of {len(data)} bytes ends early: {reason}")
    return ImageError(ErrorCode.CORRUPT, f"{name}: {reason}")


def _ends_early(data: bytes, name: str) -> bool:
    """Compare the length with the header, for the decoders that do not tell cut from damaged."""
    if name == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if name == "TIFF":
        # Where the first directory starts; compressed files have it after the pixels.
        start = data[8:16] if data[2:4] in (b"+\0", b"\0+") else data[4:8]
        return int.from_bytes(start, "little" if data.startswith(b"II") else "big") >= len(data)
    return False
