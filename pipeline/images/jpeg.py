"""JPEG: its pixels, decoded strictly.

Plain JPEGs (Huffman coding, 8 bits, grey or three components) are decoded by simplejpeg, which
lets go of the interpreter's lock; the others by Pillow. Both give the same pixels, and what
libjpeg warns of, whoever decodes, is a refusal.
"""

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile

from pipeline.errors import ErrorCode, ImageError
from pipeline.images.damage import DAMAGE, damaged, says_no_memory
from pipeline.images.jpeg_header import read_frame, without_metadata
from pipeline.images.jpeg_scans import check_complete, check_scans

_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)
# What libjpeg warns of that is beside the pixels.
_BESIDE = ("bad ICC marker", "unknown JFIF revision")

_GREY_OR_THREE = (1, 3)
_FOUR = 4


def decode_jpeg(image: JpegImageFile, data: bytes) -> NDArray[np.uint8] | None:
    """Decode a JPEG, or at least check it for damage.

    Args:
        image: Opened by Pillow.
        data: The JPEG.

    Returns:
        RGB of shape (H, W, 3); None if the JPEG is whole and of a kind that is left to Pillow.

    Raises:
        ImageError: too_slow, truncated, corrupt, out_of_memory or unsupported_mode.
    """
    check_scans(data, image.height * image.width)
    try:
        pixels = _decode_strictly(image, data)
    except ValueError as refusal:
        is_beside = any(words in str(refusal) for words in _BESIDE)
        if is_beside and (kept := without_metadata(data)) != data:
            return decode_jpeg(image, kept)
        raise _refused(image, data, str(refusal)) from refusal
    check_complete(data)
    return pixels if _is_plain(image, data) else None


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
    frame = read_frame(data)
    return image.layers in _GREY_OR_THREE and frame is not None and frame.marker in _HUFFMAN_FRAMES


def _refused(image: JpegImageFile, data: bytes, reason: str) -> ImageError:
    """Classify what libjpeg refuses: as Pillow does, where Pillow refuses it as well."""
    if says_no_memory(reason):
        return damaged(data, "JPEG", ValueError(reason))
    try:
        image.load()
    except DAMAGE as error:
        found = damaged(data, "JPEG", error)
        return ImageError(found.code, f"{found.message} ({reason})")
    if "subsampling" in reason:  # a limit of TurboJPEG, and no damage
        factors = ", ".join(f"{across} x {down}" for _, across, down, _ in image.layer)
        return ImageError(
            ErrorCode.UNSUPPORTED_MODE,
            f"JPEG with sampling factors {factors} can't be checked for damage; convert it to "
            f"4:4:4 or 4:2:0 ({reason})",
        )
    return damaged(data, "JPEG", ValueError(reason))
