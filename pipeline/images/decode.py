"""Encoded bytes to RGB pixels: pure functions, the same for labelling and training.

The rules, which `DECODER` names in the fingerprint:

* Formats: JPEG, PNG, WebP, TIFF, BMP, by their content and not by their name.
* Plain JPEGs (Huffman coding, 8 bits, grey or three components) are decoded by simplejpeg, which
  lets go of the interpreter's lock; all else by Pillow. Both give the same pixels.
* What libjpeg warns of in a JPEG, whoever decodes it, is a refusal.
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
from collections.abc import Callable

import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from pipeline.errors import ErrorCode, ImageError

DECODER = f"rules-2 pillow-{PIL.__version__} simplejpeg-{simplejpeg.__version__}"

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

# What decoders say of files that end early: Pillow and, the second, libjpeg.
_CUT_OFF = ("truncated", "premature end of jpeg file")

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = 1
_ON_ITS_SIDE = (5, 6, 7, 8)
# Exif 2.32, tag 274: how the stored picture has to be turned to stand upright.
_TURNS: dict[int, Callable[[NDArray[np.void]], NDArray[np.void]]] = {
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.T,
    6: lambda stored: stored[::-1].T,
    7: lambda stored: stored[::-1, ::-1].T,
    8: lambda stored: stored[:, ::-1].T,
}

# ITU-T T.81, table B.1: frames (SOF) start with C0 to CF without C4, C8 and CC, which are tables.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)
_GREY_OR_THREE = (1, 3)
_FOUR = 4

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
    return _decode(data, max_pixels, _to_pixels)


def decode_by_pillow(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Decode an image by Pillow alone: what `decode_image` must equal, but for libjpeg's warnings.

    Args:
        data: The encoded image.
        max_pixels: As for `decode_image`.

    Returns:
        As `decode_image`; damage that Pillow passes over is in the pixels.

    Raises:
        ImageError: As `decode_image`.
    """
    return _decode(data, max_pixels, lambda image, _: _pillow_pixels(image))


def _decode(
    data: bytes, max_pixels: int, to_pixels: Callable[[Image.Image, bytes], NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    with _open(data) as image:
        check_num_pixels(image.height, image.width, max_pixels)
        try:
            pixels = _turn(to_pixels(image, data), _orientation(image))
        except DAMAGE as error:
            raise _damaged(data, str(image.format), error) from error
    pixels.flags.writeable = False
    return pixels


def _to_pixels(image: Image.Image, data: bytes) -> NDArray[np.uint8]:
    if not isinstance(image, JpegImageFile):
        return _pillow_pixels(image)
    try:
        pixels = _decode_strictly(image, data)
    except ValueError as refusal:
        raise _refused(image, data, str(refusal)) from refusal
    return pixels if _is_plain(image, data) else _pillow_pixels(image)


def _pillow_pixels(image: Image.Image) -> NDArray[np.uint8]:
    image.load()
    return np.asarray(_to_rgb(image))


def _decode_strictly(image: JpegImageFile, data: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG of any kind. Raises ValueError with what libjpeg warns of, or can't do."""
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    if (height, width) != (image.height, image.width):
        raise ValueError(f"{height} x {width} pixels for libjpeg, others for Pillow")
    # Four components are inks, whose conversion to RGB is left to Pillow.
    colours = "CMYK" if image.layers == _FOUR else "RGB"
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
        data, colours, fastdct=False, fastupsample=False
    )
    return pixels


def _is_plain(image: JpegImageFile, data: bytes) -> bool:
    return image.layers in _GREY_OR_THREE and _frame(data) in _HUFFMAN_FRAMES


def _frame(data: bytes) -> int | None:
    """Find the marker that says how a JPEG is coded, as ITU-T T.81, B.1 lays segments out."""
    place = 2
    while data[place : place + 1] == b"\xff":
        marker = data[place + 1]
        if marker in _FRAMES:
            return marker
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None


def _refused(image: JpegImageFile, data: bytes, reason: str) -> ImageError:
    """Classify what libjpeg refuses: as Pillow does, where Pillow refuses it as well."""
    try:
        image.load()
    except DAMAGE as error:
        found = _damaged(data, str(image.format), error)
        return ImageError(found.code, f"{found.message} ({reason})")
    if "subsampling" in reason:  # a limit of TurboJPEG, and no damage
        factors = ", ".join(f"{across} x {down}" for _, across, down, _ in image.layer)
        return ImageError(
            ErrorCode.UNSUPPORTED_MODE,
            f"JPEG with sampling factors {factors} can't be checked for damage; convert it to "
            f"4:4:4 or 4:2:0 ({reason})",
        )
    return _damaged(data, str(image.format), ValueError(reason))


def _turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    if orientation == _UPRIGHT:
        return pixels
    # Whole pixels are copied, and not channel by channel.
    turned = _TURNS[orientation](pixels.view("V3")[..., 0])
    return np.ascontiguousarray(turned)[..., np.newaxis].view(np.uint8)


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
    return found if isinstance(found, int) and found in _TURNS else _UPRIGHT


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
    if _ends_early(data, name) or any(words in reason.lower() for words in _CUT_OFF):
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
