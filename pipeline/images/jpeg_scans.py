"""The scans of a JPEG: neither so many that they take time, nor so few that pixels are missing."""

import re
from collections.abc import Iterator
from itertools import islice

from pipeline.errors import ErrorCode, ImageError
from pipeline.images.jpeg_header import ALONE, BITS, EOI, SOS, Frame, read_frame, segments

_SEQUENTIAL_FRAMES = (0xC0, 0xC1)
_PROGRESSIVE_FRAMES = (0xC2,)
# T.81, B.1.1.5: coded data hold 0xFF before 0x00 (a byte of theirs) or RST only. Fill bytes may
# stand before a marker.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)

# Each scan costs a walk over the whole picture and takes 8 bytes or more. What cameras, Pillow and
# mozjpeg write has at most 15: so many are always read, and more as long as the walks are short.
_SCANS_FOR_ALL = 20
_MAX_SCANS = 100
_MAX_WALKED_PIXELS = 400 << 20  # of all scans together
# Of a block of 8 x 8 pixels.
_COEFFICIENTS = 64


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


def check_complete(data: bytes) -> None:
    """Refuse a JPEG of which scans are missing, which decoders take without a warning.

    T.81, G.1: a progressive picture comes as coefficients 0 (DC) to 63, whose low bits may follow.
    It may end before the last of them; what is written in full always has them.

    Args:
        data: The JPEG, of which a decoder has found all that there is in order.

    Raises:
        ImageError: truncated.
    """
    frame = read_frame(data)
    if frame is None or frame.marker not in (*_SEQUENTIAL_FRAMES, *_PROGRESSIVE_FRAMES):
        return
    if not _has_one_scan(data) and (lacking := _num_lacking(frame, data)):
        raise ImageError(
            ErrorCode.TRUNCATED,
            f"JPEG ends early: scans of {lacking} of its {len(frame.components)} components are "
            "missing",
        )


def _num_lacking(frame: Frame, data: bytes) -> int:
    """Count the components of which a coefficient, or a bit of one, is in no scan."""
    # By component and coefficient the bits that are still to come: all, before its first scan.
    to_come = {name: [BITS] * _COEFFICIENTS for name in frame.components}
    for place in _scans(data):
        names, coefficients, bits = _read_scan(data, place)
        if frame.marker in _SEQUENTIAL_FRAMES:
            coefficients, bits = range(_COEFFICIENTS), 0
        for name in to_come.keys() & names:
            for coefficient in coefficients:
                to_come[name][coefficient] = bits
    return sum(map(any, to_come.values()))


def _read_scan(data: bytes, place: int) -> tuple[set[int], range, int]:
    """Read the header of a scan (T.81, B.2.3): components, coefficients, bits that are to come."""
    number = data[place + 4] if place + 4 < len(data) else 0
    ends = place + 5 + 2 * number
    if not number or len(data) < ends + 3:
        return set(), range(0), 0
    first, last, bits = data[ends : ends + 3]
    coefficients = range(first, min(last + 1, _COEFFICIENTS))
    return set(data[place + 5 : ends : 2]), coefficients, bits & 0xF


def _scans(data: bytes) -> Iterator[int]:
    """Walk over the places of the scans, as T.81, B.1 and B.2 lay them out."""
    place = 2
    while (found := _MARKER.search(data, place)) is not None:
        marker, place = found[1][0], found.end()
        if marker == EOI:
            return
        if marker == SOS:
            yield found.start()
        if marker not in ALONE:
            place += int.from_bytes(data[place : place + 2], "big")


def _has_one_scan(data: bytes) -> bool:
    """Whether all components are in the first scan of a sequential JPEG: libjpeg allows no more."""
    frame = read_frame(data)
    if frame is None or frame.marker not in _SEQUENTIAL_FRAMES:
        return False
    place = next((place for marker, place in segments(data) if marker == SOS), len(data))
    return data[place + 4 : place + 5] == bytes([frame.num_components])
