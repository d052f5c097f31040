"""AVIF: what its boxes say that Pillow passes over (ISO/IEC 14496-12 and 23008-12)."""

from collections.abc import Iterator

from pipeline.errors import ErrorCode, ImageError

# From the file to the properties of its pictures; the first is a box with a version.
_TO_PROPERTIES = (b"meta", b"iprp", b"ipco")
_HEADER_BYTES, _LONG_HEADER_BYTES, _VERSION_BYTES = 8, 16, 4
_TO_THE_END, _LONG = 0, 1
_CROP = b"clap"


def refuse_cropped(data: bytes) -> None:
    """Refuse a picture that is to be cropped: it would be decoded with what is outside.

    Args:
        data: The file.

    Raises:
        ImageError: unsupported_mode.
    """
    if any(name == _CROP for name, _ in _properties(data)):
        raise ImageError(
            ErrorCode.UNSUPPORTED_MODE,
            "AVIF that is to be cropped (property clap); save it as it is shown",
        )


def _properties(data: bytes) -> Iterator[tuple[bytes, range]]:
    span = range(len(data))
    for wanted in _TO_PROPERTIES:
        found = next((one for name, one in _boxes(data, span) if name == wanted), range(0))
        span = found[_VERSION_BYTES:] if wanted == b"meta" else found
    return _boxes(data, span)


def _boxes(data: bytes, span: range) -> Iterator[tuple[bytes, range]]:
    """Walk over the boxes in a part of the file: name, and where the content is."""
    place = span.start
    while place + _HEADER_BYTES <= span.stop:
        size, header = int.from_bytes(data[place : place + 4], "big"), _HEADER_BYTES
        if size == _LONG:
            size, header = int.from_bytes(data[place + 8 : place + 16], "big"), _LONG_HEADER_BYTES
        end = span.stop if size == _TO_THE_END else place + size
        if size != _TO_THE_END and size < header:
            return
        yield data[place + 4 : place + 8], range(place + header, min(end, span.stop))
        place = end
