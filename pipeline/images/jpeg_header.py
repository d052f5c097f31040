"""What a JPEG says of itself before its first scan."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import ErrorCode, ImageError

# ITU-T T.81, table B.1: frames (SOF) start with C0 to CF without C4, C8 and CC, which are tables.
# F7 is that of JPEG-LS (ITU-T T.87, C.1.1).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_JPEG_LS = 0xF7
# T.81, annex J: frames that are differences to others, and what begins such a series.
_HIERARCHICAL = {0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF, 0xDE}
# T.81, annexes D and H.
_ARITHMETIC = (0xC9, 0xCA, 0xCB)
SOS = 0xDA
EOI = 0xD9
# T.81, table B.1: SOI, EOI and TEM have no segment behind them.
ALONE = (0x01, 0xD8, EOI)
_EXIF = 0xE1
_JFIF, _ADOBE = 0xE0, 0xEE
_JFIF_NAME, _JFIF_VERSION = slice(4, 9), slice(9, 11)
# Adobe Technical Note 5116: what its marker's last byte says.
_ADOBE_TRANSFORM = 15
_ADOBES = {0: "RGB or CMYK", 1: "YCbCr", 2: "YCCK"}
# Bytes, with marker and length, below which a segment is left out: applications' and comments.
_LEAST_BYTES = dict.fromkeys((*range(0xE0, 0xF0), 0xFE), 1 << 17)
_LEAST_BYTES |= {_EXIF: 0, _JFIF: 18, _ADOBE: 16}

_KNOWN_COMPONENTS = (1, 3, 4)
BITS = 8


@dataclass(frozen=True)
class Frame:
    """The header of a JPEG's frame (T.81, B.2.2).

    Attributes:
        marker: How it is coded, 0xC0 to 0xCF, or 0xF7.
        bits: Per sample.
        height: In pixels; 0 leaves it to a segment behind the first scan.
        num_components: 1 grey, 3 colour, 4 inks.
        components: The names that scans call them by.
    """

    marker: int
    bits: int
    height: int
    num_components: int
    components: frozenset[int]


def read_frame(data: bytes) -> Frame | None:
    """Read the header of the first frame; None without one.

    Args:
        data: The JPEG.
    """
    for marker, place in segments(data):
        if marker in _FRAMES and place + 10 <= len(data):
            number = data[place + 9]
            names = frozenset(data[place + 10 : place + 10 + 3 * number : 3])
            height = int.from_bytes(data[place + 5 : place + 7], "big")
            return Frame(marker, data[place + 4], height, number, names)
    return None


def segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Walk over markers and their places up to the first scan, as T.81, B.1 lays them out.

    Args:
        data: The JPEG.
    """
    place = 2
    while data[place : place + 1] == b"\xff" and place + 1 < len(data):
        marker = data[place + 1]
        if marker == 0xFF:  # T.81, B.1.1.2: fill bytes may stand before a marker
            place += 1
            continue
        yield marker, place
        if marker in (SOS, EOI):
            return
        if marker in ALONE:
            place += 2
            continue
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")


def named_colours(data: bytes) -> str | None:
    """Return what a JPEG calls its colours, by Adobe's or JFIF's marker, or by its components.

    Args:
        data: The JPEG.

    Returns:
        None if it does not call them anything.
    """
    names = None
    for marker, place in segments(data):
        segment = data[place : place + 16]
        if marker == _ADOBE and segment[4:9] == b"Adobe" and len(segment) == 16:
            return _ADOBES.get(segment[_ADOBE_TRANSFORM])
        if marker == _JFIF and segment[_JFIF_NAME] == b"JFIF\0":
            names = "grey or YCbCr"
    frame = read_frame(data)
    return "RGB" if frame is not None and frame.components == frozenset(b"RGB") else names


def without_metadata(data: bytes) -> bytes:
    """Leave out the segments that decide no pixel and no turn, which Pillow refuses when damaged.

    Args:
        data: The JPEG.

    Returns:
        The JPEG without profiles, comments and their like, and without headers of JFIF and Adobe
        that are too short to be one, as which libjpeg does not take them either; JFIF's is called
        one of version 1.02.
    """
    kept, end = [data[:2]], 2
    for marker, place in segments(data):
        if marker == SOS:
            break
        alone = marker in ALONE
        end = place + 2 + (0 if alone else int.from_bytes(data[place + 2 : place + 4], "big"))
        segment = data[place:end]
        if marker == _JFIF and segment[_JFIF_NAME] == b"JFIF\0":
            segment = segment[: _JFIF_VERSION.start] + b"\1\2" + segment[_JFIF_VERSION.stop :]
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
    if any(marker in _HIERARCHICAL for marker, _ in segments(data)):
        raise ImageError(ErrorCode.UNSUPPORTED_MODE, "hierarchical JPEG; convert it")
    frame = read_frame(data)
    if frame is None:
        return
    if frame.height == 0:
        raise ImageError(
            ErrorCode.UNSUPPORTED_MODE,
            "JPEG that gives its height behind its first scan (DNL); convert it",
        )
    if frame.marker == _JPEG_LS:
        raise ImageError(ErrorCode.UNSUPPORTED_FORMAT, "JPEG-LS; convert it to JPEG or PNG")
    if frame.marker in _ARITHMETIC:
        raise ImageError(
            ErrorCode.UNSUPPORTED_MODE,
            "JPEG in arithmetic coding, whose decoders do not tell of missing data; convert it "
            "with `jpegtran`",
        )
    if frame.bits != BITS:
        raise ImageError(
            ErrorCode.UNSUPPORTED_MODE,
            f"JPEG of {frame.bits} bits per sample, {BITS} are read; convert it",
        )
    if frame.num_components not in _KNOWN_COMPONENTS:
        raise ImageError(
            ErrorCode.UNSUPPORTED_MODE,
            f"JPEG of {frame.num_components} components; 1 (grey), 3 (colour) and 4 (inks) are "
            "read",
        )
