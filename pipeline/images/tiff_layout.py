"""What a TIFF says of itself, judged before anything of it is decoded.

What is let through is what `tests/pipeline/images/test_matrix_tiff.py` proves to be decoded right;
all else is refused with the name of the thing.
"""

import math
from collections.abc import Iterator

from tifffile import COMPRESSION, DATATYPE, PHOTOMETRIC, SAMPLEFORMAT, TiffPage

from pipeline.errors import ErrorCode, ImageError

# TIFF 6.0, and the pages of https://libtiff.gitlab.io for what came later.
UNCOMPRESSED = 1
LZW = 5
JPEG = 7
_CCITT = (2, 3, 4)
_PACKBITS = 32773
_BY_BYTES = (5, 8, 32946, 34925, 50000)  # LZW, Deflate (its two numbers), LZMA, ZSTD
_COMPRESSIONS = (UNCOMPRESSED, JPEG, _PACKBITS, *_BY_BYTES)

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, SEPARATED, YCBCR, CIELAB = 0, 1, 2, 3, 5, 6, 8
# Colours per pixel, without extra samples; the bits that a sample may have.
COLOURS = {
    WHITE_IS_ZERO: 1,
    BLACK_IS_ZERO: 1,
    RGB: 3,
    PALETTE: 1,
    SEPARATED: 4,
    YCBCR: 3,
    CIELAB: 3,
}
_BITS = {
    WHITE_IS_ZERO: (1, 2, 4, 8, 10, 12, 14, 16),
    BLACK_IS_ZERO: (1, 2, 4, 8, 10, 12, 14, 16),
    RGB: (8, 16),
    PALETTE: (1, 2, 4, 8, 16),
    SEPARATED: (8, 16),
    YCBCR: (8,),
    CIELAB: (8,),
}
_JPEG_COLOURS = (BLACK_IS_ZERO, RGB, YCBCR, SEPARATED)
UNSPECIFIED, PREMULTIPLIED, ALPHA = 0, 1, 2
_MAX_EXTRA_SAMPLES = 4

_RAW_PHOTOGRAPHS = (32803, 34892)  # photometric interpretations: colour filter array, linear raw
_DNG_VERSION = 50706
_PHOTOMETRIC = 262
_SUB_IFDS = 330
_INK_SET = 332
_COEFFICIENTS = 529
_REFERENCES = 532
_CMYK = 1
_REDUCED = 1
_CONTIGUOUS, _IN_PLANES = 1, 2

# Sizes, samples, strips, tiles and palettes; 16 and 32 bits, and the 64 of BigTIFF.
_LAYOUT_TAGS = (
    *(256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320),
    *(322, 323, 324, 325, 338, 339, 530),
)
_LAYOUT_TYPES = (DATATYPE.SHORT, DATATYPE.LONG, DATATYPE.LONG8)

_MAX_SEGMENTS = 1 << 16
_MAX_TILE_PIXELS = 1 << 24


def check_layout(page: TiffPage) -> None:
    """Refuse a page that would not be decoded right.

    Args:
        page: Its first one.

    Raises:
        ImageError: unsupported_format for raw photographs, unsupported_mode with what it is.
    """
    if page.photometric in _RAW_PHOTOGRAPHS or _DNG_VERSION in page.tags:
        raise ImageError(
            ErrorCode.UNSUPPORTED_FORMAT, "TIFF: a raw photograph (DNG); develop it to JPEG or PNG"
        )
    reason = next(_reasons(page), None)
    if reason is not None:
        raise ImageError(ErrorCode.UNSUPPORTED_MODE, f"TIFF: {reason}")


def _reasons(page: TiffPage) -> Iterator[str]:
    if page.compression in _CCITT:
        yield "fax compression (CCITT), whose decoders do not tell of damage; save it anew"
    if page.compression not in _COMPRESSIONS:
        yield f"{_name(COMPRESSION, page.compression)} compression"
    if _PHOTOMETRIC not in page.tags:
        yield "it does not say what its colours are (tag 262)"
    if page.photometric not in COLOURS:
        yield f"{_name(PHOTOMETRIC, page.photometric)} colours"
        return
    yield from _type_reasons(page)
    yield from _sample_reasons(page)
    yield from _extra_reasons(page)
    yield from _packing_reasons(page)
    yield from _colour_reasons(page)
    if page.subfiletype & _REDUCED and _SUB_IFDS in page.tags:
        yield "its first page is a reduced copy of another (a raw photograph?)"


def _type_reasons(page: TiffPage) -> Iterator[str]:
    """Name a tag of a type that TIFF 6.0 does not let it have: readers see different numbers."""
    for code in _LAYOUT_TAGS:
        tag = page.tags.get(code)
        if tag is not None and tag.dtype not in _LAYOUT_TYPES:
            yield f"tag {code} ({tag.name}) of type {tag.dtype_name}"


def _sample_reasons(page: TiffPage) -> Iterator[str]:
    bits, allowed = page.bitspersample, _BITS[page.photometric]
    formats = page.tags.valueof(339, SAMPLEFORMAT.UINT)
    for found in formats if isinstance(formats, tuple) else (formats,):
        if found not in (SAMPLEFORMAT.UINT, SAMPLEFORMAT.VOID):
            yield f"samples of {_name(SAMPLEFORMAT, found)}, whose range is not defined"
    if bits not in allowed:
        known = ", ".join(map(str, allowed))
        yield (
            f"{bits} bits per sample in {_name(PHOTOMETRIC, page.photometric)}; {known} are read"
        )
    if page.planarconfig not in (_CONTIGUOUS, _IN_PLANES):
        yield f"planar configuration {page.planarconfig!r}"
    if page.imagedepth != 1:
        yield f"{page.imagedepth} images in depth"
    if math.prod(page.shape) == 0:
        yield f"no pixels: shape {page.shape}"


def _extra_reasons(page: TiffPage) -> Iterator[str]:
    num_extra = page.samplesperpixel - COLOURS[page.photometric]
    if not 0 <= num_extra <= _MAX_EXTRA_SAMPLES:
        yield (
            f"{page.samplesperpixel} samples per pixel in {_name(PHOTOMETRIC, page.photometric)}"
        )
        return
    extra = page.extrasamples
    if extra and len(extra) != num_extra:
        yield f"{num_extra} extra samples, of which {len(extra)} are described"
    if any(one in (PREMULTIPLIED, ALPHA) for one in extra[1:]):
        yield "an alpha that is not the first extra sample"
    if any(one not in (UNSPECIFIED, PREMULTIPLIED, ALPHA) for one in extra):
        yield f"extra samples {tuple(map(int, extra))}"
    alpha = bool(extra) and extra[0] != UNSPECIFIED
    if alpha and page.photometric not in (BLACK_IS_ZERO, RGB):
        yield f"alpha in {_name(PHOTOMETRIC, page.photometric)}"
    if num_extra and not extra and page.photometric != RGB:
        yield "extra samples of which nothing is said"


def _packing_reasons(page: TiffPage) -> Iterator[str]:
    bits, compression = page.bitspersample, page.compression
    if page.predictor != 1 and (
        page.predictor != 2 or bits not in (8, 16) or compression not in _BY_BYTES
    ):
        yield f"predictor {int(page.predictor)} with {_name(COMPRESSION, compression)}"
    if page.fillorder not in (1, 2) or (page.fillorder == 2 and page.predictor != 1):
        yield f"fill order {int(page.fillorder)} with predictor {int(page.predictor)}"
    if compression == JPEG and (bits != 8 or page.photometric not in _JPEG_COLOURS):
        yield f"JPEG compression of {bits} bits in {_name(PHOTOMETRIC, page.photometric)}"
    if compression == JPEG and page.samplesperpixel != COLOURS[page.photometric]:
        yield f"JPEG compression of {page.samplesperpixel} samples per pixel"
    if page.is_tiled and page.tilewidth * page.tilelength > _MAX_TILE_PIXELS:
        yield f"tiles of {page.tilelength} x {page.tilewidth} pixels"


def _colour_reasons(page: TiffPage) -> Iterator[str]:
    if page.photometric == SEPARATED and page.tags.valueof(_INK_SET, _CMYK) != _CMYK:
        yield "inks that are not those of CMYK"
    if page.photometric != YCBCR:
        return
    if is_subsampled(page) and (page.compression != UNCOMPRESSED or page.is_tiled):
        yield f"YCbCr with subsampling {page.subsampling} in {_name(COMPRESSION, page.compression)}"
    if page.planarconfig != 1:
        yield "YCbCr in planes"
    if page.compression != JPEG and not _has_usual_ycbcr(page):
        yield "YCbCr with coefficients or references of its own"


def colours_of(page: TiffPage) -> str:
    """Name what a page calls its colours."""
    return _name(PHOTOMETRIC, page.photometric)


def is_subsampled(page: TiffPage) -> bool:
    """Return whether several pixels share their colour differences, outside of a JPEG."""
    return bool(page.is_subsampled) and page.compression != JPEG


def _has_usual_ycbcr(page: TiffPage) -> bool:
    """Whether the conversion is that of JFIF, which Pillow's formula is (TIFF 6.0, section 21)."""
    red, green, blue = _ratios(page, _COEFFICIENTS) or (0.299, 0.587, 0.114)
    usual = max(abs(red - 0.299), abs(green - 0.587), abs(blue - 0.114)) < 1e-3
    references = _ratios(page, _REFERENCES) or (0, 255, 128, 255, 128, 255)
    return usual and tuple(map(round, references)) == (0, 255, 128, 255, 128, 255)


def _ratios(page: TiffPage, tag: int) -> list[float]:
    found = page.tags.valueof(tag, ())
    return [top / bottom for top, bottom in zip(found[::2], found[1::2], strict=True)]


def _name(kind: type, number: int) -> str:
    try:
        return str(kind(number).name)
    except ValueError:
        return f"{kind.__name__.lower()} {int(number)}"


def segment_places(page: TiffPage, num_bytes: int) -> list[tuple[int, int]]:
    """Find the strips or tiles: (offset, number of bytes) of each.

    Args:
        page: A page that `check_layout` has let through.
        num_bytes: Number of bytes of the file.

    Raises:
        ImageError: too_slow, truncated, unsupported_mode or corrupt.
    """
    number = math.prod(page.chunked)
    if number > _MAX_SEGMENTS:
        raise ImageError(
            ErrorCode.TOO_SLOW,
            f"TIFF of {number} strips or tiles; the limit is {_MAX_SEGMENTS}; save it anew",
        )
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))[:number]
    if not page.databytecounts:
        raise ImageError(
            ErrorCode.UNSUPPORTED_MODE, "TIFF that gives no lengths of its strips; write it anew"
        )
    if len(places) < number:
        raise ImageError(
            ErrorCode.CORRUPT, f"TIFF: {number} strips or tiles, of which {len(places)} have places"
        )
    for place, (offset, length) in enumerate(places):
        if length == 0:
            raise ImageError(
                ErrorCode.UNSUPPORTED_MODE,
                f"TIFF of which strip or tile {place} is left out, or its length; write it in full",
            )
        if offset <= 0 or length < max(1, _least_bytes(page, place)):
            raise ImageError(
                ErrorCode.CORRUPT,
                f"TIFF: strip or tile {place} has {length} bytes at {offset}, which is too little",
            )
        if offset + length > num_bytes:
            raise ImageError(
                ErrorCode.TRUNCATED,
                f"TIFF of {num_bytes} bytes ends early: strip or tile {place} reaches to byte "
                f"{offset + length}",
            )
    return places


def _least_bytes(page: TiffPage, place: int) -> int:
    """Return what a strip or tile has to have; its decoder would read on beyond its end."""
    if page.compression != UNCOMPRESSED or is_subsampled(page):
        return 1
    return decoded_bytes(page, place)


def segment_size(page: TiffPage, place: int) -> tuple[int, int]:
    """Return (height, width) of a strip or tile, as far as the picture reaches into a strip.

    Args:
        page: A page that `check_layout` has let through.
        place: Number of the strip or tile.
    """
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    first_row = place % math.ceil(page.imagelength / page.rowsperstrip) * page.rowsperstrip
    return min(page.rowsperstrip, page.imagelength - first_row), page.imagewidth


def decoded_bytes(page: TiffPage, place: int) -> int:
    """Return the bytes of the samples of a strip or tile; each row begins at a byte.

    Args:
        page: A page that `check_layout` has let through, without subsampling.
        place: Number of the strip or tile.
    """
    rows, columns = segment_size(page, place)
    return rows * math.ceil(columns * segment_samples(page) * page.bitspersample / 8)


def reaches_over(page: TiffPage, place: int) -> bool:
    """Return whether a tile reaches over the right or the lower edge of the picture."""
    if not page.is_tiled:
        return False
    across = math.ceil(page.imagewidth / page.tilewidth)
    down = math.ceil(page.imagelength / page.tilelength)
    row, column = divmod(place % (across * down), across)
    is_over_right = (column + 1) * page.tilewidth > page.imagewidth
    return is_over_right or (row + 1) * page.tilelength > page.imagelength


def segment_samples(page: TiffPage) -> int:
    """Return the samples of a pixel in one strip or tile: all of them, or one in planes."""
    return page.samplesperpixel if page.planarconfig == _CONTIGUOUS else 1
