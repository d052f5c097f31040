"""Encoded bytes to RGB pixels: pure functions, the same for labelling and training.

The rules, which `DECODER` names in the fingerprint:

* Formats: JPEG, PNG, WebP, TIFF, BMP and, where Pillow reads it, AVIF; by their content and not by
  their name.
* Plain JPEGs are decoded by simplejpeg, TIFFs by tifffile, all else by Pillow.
* What a decoder warns of is a refusal: libjpeg's warnings, checksums of PNG.
* What is not known to be decoded right is refused, by what the file says of itself.
* Of a file with several frames the first is taken.
* The EXIF orientation is applied, once; the mask is the size of the picture as people see it. What
  XMP says of it is not read, whatever the format.
* Grey becomes R = G = B. Palettes are looked up. Transparency is laid over white.
* Of more than 8 bits per channel the upper 8 are taken.
* CMYK, YCbCr, HSV and LAB are converted by Pillow's formulas, without colour profiles.
* 32-bit integers and floating point have no defined range: `unsupported_mode`.
"""

from collections.abc import Callable
from typing import Protocol

import imagecodecs
import numpy as np
import PIL
import simplejpeg
import tifffile
from numpy.typing import NDArray

from pipeline.errors import ErrorCode, ImageError
from pipeline.images.bmp import BmpPicture
from pipeline.images.by_pillow import PillowPicture, PngPicture
from pipeline.images.damage import honest_errors
from pipeline.images.formats import FORMATS, sniff
from pipeline.images.tiff import TiffPicture

DECODER = (
    f"rules-6 pillow-{PIL.__version__} simplejpeg-{simplejpeg.__version__} "
    f"tifffile-{tifffile.__version__} imagecodecs-{imagecodecs.__version__}"
)

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


class _Picture(Protocol):
    """An image of which the header is read."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as stored."""

    @property
    def orientation(self) -> object:
        """What the file says of it: whatever it is, or None."""

    def decode(self) -> NDArray[np.uint8]:
        """Decode to RGB of shape (H, W, 3), as stored."""


def read_size(data: bytes) -> tuple[int, int]:
    """Read the stored size from the header, without decoding.

    Args:
        data: The encoded image.

    Returns:
        (height, width) as stored, before the EXIF orientation.

    Raises:
        ImageError: As `decode_image`, as far as the header shows it.
    """
    name = _format(data)
    with honest_errors(data, name):
        return _open(data, name).size


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
    name = _format(data)
    with honest_errors(data, name):
        return _orientation(_open(data, name))


def check_num_pixels(height: int, width: int, max_pixels: int) -> None:
    """Refuse an image that is too large, or has no pixels.

    Args:
        height: As its header says.
        width: The same.
        max_pixels: The limit on height * width.

    Raises:
        ImageError: too_many_pixels or corrupt.
    """
    if height * width > max_pixels:
        raise ImageError(
            ErrorCode.TOO_MANY_PIXELS,
            f"{height} x {width} = {height * width} pixels, the limit is {max_pixels} "
            "(max_image_pixels)",
        )
    if height < 1 or width < 1:
        raise ImageError(ErrorCode.CORRUPT, f"{height} x {width} pixels: there is none")


def decode_image(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Decode an image to upright RGB.

    Args:
        data: The encoded image.
        max_pixels: The limit on height * width, checked before anything is decoded.

    Returns:
        RGB, uint8 of shape (H, W, 3), C-contiguous and read-only.

    Raises:
        ImageError: unsupported_format, too_many_pixels, truncated, corrupt, unsupported_mode,
            too_slow, or out_of_memory, which alone does not lie in the bytes.
    """
    name = _format(data)
    with honest_errors(data, name):
        picture = _open(data, name)
        check_num_pixels(*picture.size, max_pixels)
        pixels = _turn(picture.decode(), _orientation(picture))
    pixels.flags.writeable = False
    return pixels


def decode_by_pillow(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Decode a JPEG by Pillow alone: what `decode_image` must equal, but for libjpeg's warnings.

    Args:
        data: The encoded image; any but TIFF, PNG and BMP.
        max_pixels: As for `decode_image`.

    Returns:
        As `decode_image`; damage that Pillow passes over is in the pixels.

    Raises:
        ImageError: As `decode_image`.
    """
    name = _format(data)
    with honest_errors(data, name):
        picture = PillowPicture(data, name)
        check_num_pixels(*picture.size, max_pixels)
        return _turn(picture.decode_by_pillow(), _orientation(picture))


def _format(data: bytes) -> str:
    if not data:
        raise ImageError(ErrorCode.TRUNCATED, "the file is empty")
    name = sniff(data)
    if name is not None and name in FORMATS:
        return name
    what = f"is {name}" if name else f"starts with {data[:8]!r}"
    raise ImageError(ErrorCode.UNSUPPORTED_FORMAT, f"{what}, which is none of {', '.join(FORMATS)}")


def _open(data: bytes, name: str) -> _Picture:
    readers: dict[str, Callable[[bytes], _Picture]] = {
        "TIFF": TiffPicture,
        "PNG": PngPicture,
        "BMP": BmpPicture,
    }
    return readers[name](data) if name in readers else PillowPicture(data, name)


def _orientation(picture: _Picture) -> int:
    found = picture.orientation
    return found if isinstance(found, int) and found in _TURNS else _UPRIGHT


def _turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    if orientation == _UPRIGHT:
        return np.ascontiguousarray(pixels)
    # Whole pixels are copied, and not channel by channel.
    turned = _TURNS[orientation](np.ascontiguousarray(pixels).view("V3")[..., 0])
    return np.ascontiguousarray(turned)[..., np.newaxis].view(np.uint8)
