"""What decoders say of files that they can't read, translated into error codes."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from PIL import Image
from zlib_ng import zlib_ng

from pipeline.errors import ErrorCode, ImageError

# Pixels are counted before any is decoded, against the caller's limit. Pillow's own limit is one
# number for the whole process and would stand in the way of a higher one.
Image.MAX_IMAGE_PIXELS = None

# What Pillow's, simplejpeg's and tifffile's decoders raise on damaged files, collected by fuzzing
# (tests/pipeline/images/test_decode.py).
DAMAGE: tuple[type[Exception], ...] = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    EOFError,
    NotImplementedError,
    AssertionError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
    # Its stub calls it an exception, and not the class of one.
    cast("type[Exception]", zlib_ng.error),
)

# What decoders say of files that end early: Pillow, libjpeg, and both TIFF readers.
_CUT_OFF = ("truncated", "premature end of jpeg file", "not enough image data")
# What they say where the file may be whole and they are not made for it.
_UNSUPPORTED = ("unsupported", "not supported", "unknown pixel mode", "cannot handle")
# Pillow's codecs, libjpeg and imagecodecs say it in words and not by a MemoryError.
_NO_MEMORY = ("out of memory", "insufficient memory")


@contextmanager
def honest_errors(data: bytes, name: str) -> Iterator[None]:
    """Translate what a decoder raises into an ImageError.

    Args:
        data: The encoded image.
        name: The name of its format.

    Raises:
        ImageError: out_of_memory, truncated, unsupported_mode or corrupt.
    """
    try:
        yield
    except MemoryError as error:
        raise _out_of_memory(data, name) from error
    except DAMAGE as error:
        raise damaged(data, name, error) from error


def damaged(data: bytes, name: str, error: BaseException) -> ImageError:
    """Build the ImageError for what a decoder said.

    Args:
        data: The encoded image.
        name: The name of its format.
        error: What the decoder raised.
    """
    reason = str(error) or type(error).__name__
    said = reason.lower()
    if says_no_memory(reason):
        return _out_of_memory(data, name)
    if any(words in said for words in _UNSUPPORTED):
        return ImageError(ErrorCode.UNSUPPORTED_MODE, f"{name}: {reason}")
    if _ends_early(data, name) or any(words in said for words in _CUT_OFF):
        return ImageError(ErrorCode.TRUNCATED, f"{name} of {len(data)} bytes ends early: {reason}")
    return ImageError(ErrorCode.CORRUPT, f"{name}: {reason}")


def says_no_memory(reason: str) -> bool:
    """Return whether a decoder's words are that there was no memory.

    Args:
        reason: What it said.
    """
    return any(words in reason.lower() for words in _NO_MEMORY)


def _out_of_memory(data: bytes, name: str) -> ImageError:
    return ImageError(
        ErrorCode.OUT_OF_MEMORY,
        f"{name} of {len(data)} bytes: there was no memory to decode it; fewer replicas per node, "
        "or a lower max_image_pixels, leave more",
    )


def _ends_early(data: bytes, name: str) -> bool:
    """Compare the length with the header, for the decoders that do not tell cut from damaged."""
    if name == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if name == "AVIF":
        return _boxes_end(data) > len(data)
    return False


def _boxes_end(data: bytes) -> int:
    """Add up the boxes of an ISO base media file (ISO 14496-12, 4.2): where the last one ends."""
    place = 0
    while 0 <= place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if length == 1:  # the length follows in 64 bits
            length = int.from_bytes(data[place + 8 : place + 16], "big")
        if length < 8:  # 0 says: to the end of the file
            return len(data)
        place += length
    return place
