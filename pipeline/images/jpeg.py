"""JPEG: what kind it is, what it costs, and its pixels, decoded strictly.

Plain JPEGs (Huffman coding, 8 bits, grey or three components) are decoded by simplejpeg, which
lets go of the interpreter's lock; the others by Pillow. Both give the same pixels, and what
libjpeg warns of, whoever decodes, is a refusal.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile

from pipeline.errors import ErrorCode, ImageError
from pipeline.images.damage import DAMAGE, damaged, says_no_memory

# ITU-T T.81, table B.1: frames (SOF) start with C0 to CF without C4, C8 and CC, which are tables.
# F7 is that of JPEG-LS (ITU-T T.87, C.1.1).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)
_JPEG_LS = 0xF7
_SEQUENTIAL_FRAMES = (0xC0, 0xC1)
_SOS = 0xDA
_EOI = 0xD9
# T.81, table B.1: SOI, EOI and TEM have no segment behind them.
_ALONE = (0x01, 0xD8, _EOI)
_EXIF = 0xE1
_JFIF, _ADOBE = 0xE0, 0xEE
# Bytes, with marker and length, below which a segment is left out: applications' and comments.
_LEAST_BYTES = dict.fromkeys((*range(0xE0, 0xF0), 0xFE), 1 << 17)
_LEAST_BYTES |= {_EXIF: 0, _JFIF: 18, _ADOBE: 16}
# What libjpeg warns of that is beside the pixels.
_OF_A_PROFILE = "bad ICC marker"
# T.81, B.1.1.5: coded data hold 0xFF before 0x00 (a byte of theirs) or RST only. Fill bytes may
# stand before a marker.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)

# Each scan costs a walk over the whole picture and takes 8 bytes or more. What cameras, Pillow and
# mozjpeg write has at most 15: so many are always read, and more as long as the walks are short.
_SCANS_FOR_ALL = 20
_MAX_SCANS = 100
_MAX_WALKED_PIXELS = 400 << 20  # of all scans together

_GREY_OR_THREE = (1, 3)
_FOUR = 4
_KNOWN_COMPONENTS = (1, 3, 4)
_BITS = 8


@dataclass(frozen=True)
class Frame:
    """The header of a JPEG's frame (T.81, B.2.2).

    Attributes:
        marker: How it is coded, 0xC0 to 0xCF, or 0xF7.
        bits: Per sample.
        num_components: 1 grey, 3 colour, 4 inks.
    """

    marker: int
    bits: int
    num_components: int


def read_frame(data: bytes) -> Frame | None:
    """Read the header of the first frame; None without one.

    Args:
        data: The JPEG.
    """
    for marker, place in _segments(data):
        if marker in _FRAMES and place + 10 <= len(data):
            return Frame(marker, data[place + 4], data[place + 9])
    return None


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Walk over markers and their places up to the first scan, as T.81, B.1 lays them out."""
    place = 2
    while data[place : place + 1] == b"\xff" and place + 1 < len(data):
        marker = data[place + 1]
        if marker == 0xFF:  # T.81, B.1.1.2: fill bytes may stand before a marker
            place += 1
            continue
        yield marker, place
        if marker in (_SOS, _EOI):
            return
        if marker in _ALONE:
            place += 2
            continue
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")


def without_metadata(data: bytes) -> bytes:
    """Leave out the segments that decide no pixel and no turn, which Pillow refuses when damaged.

    Args:
        data: The JPEG.

    Returns:
        The JPEG without profiles, comments and their like, and without headers of JFIF and Adobe
        that are too short to be one, as which libjpeg does not take them either.
    """
    kept, end = [data[:2]], 2
    for marker, place in _segments(data):
        if marker == _SOS:
            break
        alone = marker in _ALONE
        end = place + 2 + (0 if alone else int.from_bytes(data[place + 2 : place + 4], "big"))
        segment = data[place:end]
        if len(segment) >= _LEAST_BYTES.get(marker, 0):
            kept.append(segment)
    return b"".join([*kept, data[end:]])


def check_kind(data: bytes) -> None:
    """Refuse JPEGs for which no decoder is here, before one calls them damaged.

    Args:
        data: The JPEG.

    Raises:
        ImageError: unsupported_mode, with what it is.
    """
    frame = read_frame(data)
    if frame is None:
        return
    if frame.marker == _JPEG_LS:
        raise ImageError(ErrorCode.UNSUPPORTED_FORMAT, "JPEG-LS; convert it to JPEG or PNG")
    if frame.bits != _BITS:
        raise ImageError(
            ErrorCode.UNSUPPORTED_MODE,
            f"JPEG of {frame.bits} bits per sample, {_BITS} are read; convert it",
        )
    if frame.num_components not in _KNOWN_COMPONENTS:
        raise ImageError(
            ErrorCode.UNSUPPORTED_MODE,
            f"JPEG of {frame.num_components} components; 1 (grey), 3 (colour) and 4 (inks) are "
            "read",
        )


def check_scans(data: bytes, num_pixels: int) -> None:
    """Refuse a JPEG of so many scans that it was made to take time.

    Args:
        data: The JPEG. What stands in its segments (a thumbnail) or behind its end (a video) is
            none of its scans.
        num_pixels: Number of pixels of the picture.

    Raises:
        ImageError: too_slow.
    """
    if _has_one_scan(data):  # most photographs: their bytes need no search
        return
    limit = min(_MAX_SCANS, max(_SCANS_FOR_ALL, _MAX_WALKED_PIXELS // max(1, num_pixels)))
    if sum(1 for _ in islice(_scans(data), limit + 1)) > limit:
        raise ImageError(
            ErrorCode.TOO_SLOW,
            f"JPEG of more than {limit} scans, each of which costs time for the whole picture: the "
            f"limit for {num_pixels} pixels; save it anew",
        )


def _scans(data: bytes) -> Iterator[int]:
    """Walk over the places of the scans, as T.81, B.1 and B.2 lay them out."""
    place = 2
    while (found := _MARKER.search(data, place)) is not None:
        marker, place = found[1][0], found.end()
        if marker == _EOI:
            return
        if marker == _SOS:
            yield found.start()
        if marker not in _ALONE:
            place += int.from_bytes(data[place : place + 2], "big")


def _has_one_scan(data: bytes) -> bool:
    """Whether all components are in the first scan of a sequential JPEG: libjpeg allows no more."""
    frame = read_frame(data)
    if frame is None or frame.marker not in _SEQUENTIAL_FRAMES:
        return False
    place = next((place for marker, place in _segments(data) if marker == _SOS), len(data))
    return data[place + 4 : place + 5] == bytes([frame.num_components])


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
        if _OF_A_PROFILE in str(refusal) and (kept := without_metadata(data)) != data:
            return decode_jpeg(image, kept)
        raise _refused(image, data, str(refusal)) from refusal
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
