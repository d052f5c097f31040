"""BMP: every header, depth and mask is decoded to the pixels that it was made of, or refused."""

import itertools
import struct

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import ErrorCode, ImageError
from pipeline.images.decode import decode_image
from tests.disk_runs import random_pixels

_LIMIT = 1 << 20
_SIZES = ((1, 1), (3, 5), (4, 32), (7, 33))
# Bytes of the header (OS/2's, Windows' 3 with and without masks, 4 and 5), after Microsoft's
# "Bitmap Header Types".
_CORE, _INFO, _V2, _V3, _V4, _V5 = 12, 40, 52, 56, 108, 124
_RGB, _RLE8, _RLE4, _BITFIELDS = 0, 1, 2, 3


def _write(
    size: tuple[int, int],
    bits: int,
    rows: bytes,
    header: int = _INFO,
    compression: int = _RGB,
    masks: tuple[int, ...] = (),
    palette: NDArray[np.uint8] | None = None,
    *,
    upside_up: bool = False,
) -> bytes:
    """Put a BMP together; `rows` as they stand in the file."""
    height, width = size
    if header == _CORE:
        head = struct.pack("<IHHHH", _CORE, width, height, 1, bits)
    else:
        number = 0 if palette is None else len(palette)
        shown = -height if upside_up else height
        head = struct.pack("<IiiHHI", header, width, shown, 1, bits, compression)
        head += struct.pack("<IiiII", len(rows), 0, 0, number, 0)
        inside = masks if header > _INFO else ()
        head += struct.pack(f"<{len(inside)}I", *inside)
        head = head.ljust(header, b"\0")
        head += b"" if inside else struct.pack(f"<{len(masks)}I", *masks)
    colours = b""
    if palette is not None:
        ends = b"" if header == _CORE else b"\0"
        colours = b"".join(bytes(colour[::-1]) + ends for colour in palette.tolist())
    offset = 14 + len(head) + len(colours)
    return struct.pack("<2sIHHI", b"BM", offset + len(rows), 0, 0, offset) + head + colours + rows


def _pad(rows: NDArray[np.uint8], *, upside_up: bool = False) -> bytes:
    """Lay rows of bytes out from the bottom to the top, each of a multiple of four bytes."""
    missing = -rows.shape[1] % 4
    padded = np.pad(rows, ((0, 0), (0, missing)))
    return (padded if upside_up else padded[::-1]).tobytes()


def _assert_pixels(data: bytes, expected: NDArray[np.int64], name: object) -> None:
    found = decode_image(data, _LIMIT)
    assert found.tolist() == expected.tolist(), name


@pytest.mark.parametrize("header", [_CORE, _INFO, _V2, _V3, _V4, _V5])
@pytest.mark.parametrize("upside_up", [False, True])
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palettes(header: int, bits: int, *, upside_up: bool) -> None:
    """Colours are looked up, under every header; rows run upwards or downwards."""
    palette = random_pixels(bits, 1 << bits, 3)
    for size in _SIZES:
        if header == _CORE and upside_up:
            continue
        indices = np.random.default_rng(bits).integers(0, 1 << bits, size)
        digits = indices[..., None] >> np.arange(bits - 1, -1, -1) & 1
        rows = np.packbits(digits.reshape(size[0], -1).astype(np.uint8), axis=1)
        data = _write(
            size,
            bits,
            _pad(rows, upside_up=upside_up),
            header,
            palette=palette,
            upside_up=upside_up,
        )
        _assert_pixels(data, palette[indices], (size, header, bits))


_BLACK_AND_WHITE = np.array([[0] * 3, [255] * 3], np.uint8)


def _ramp(number: int) -> NDArray[np.uint8]:
    return np.repeat(np.arange(number, dtype=np.uint8)[:, None], 3, axis=1)


@pytest.mark.parametrize("header", [_INFO, _V5])
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palettes_of_greys_and_short_ones(header: int, bits: int) -> None:
    """Indices are looked up at every depth, also in black and white, ramps, and few colours."""
    short = [random_pixels(7, number, 3) for number in (1, 2, 3, 15, 255)]
    ramps = [_ramp(number) for number in (1, 2, 3, 16, 255, 256)]
    for palette in (_BLACK_AND_WHITE, _BLACK_AND_WHITE[::-1], *short, *ramps):
        if len(palette) > 1 << bits:
            continue
        indices = np.random.default_rng(bits).integers(0, len(palette), (5, 33))
        digits = indices[..., None] >> np.arange(bits - 1, -1, -1) & 1
        rows = np.packbits(digits.reshape(5, -1).astype(np.uint8), axis=1)
        data = _write((5, 33), bits, _pad(rows), header, palette=palette)
        _assert_pixels(data, palette[indices], (bits, len(palette)))


@pytest.mark.parametrize(("bits", "compression"), [(8, _RLE8), (4, _RLE4)])
@pytest.mark.parametrize("palette", [_BLACK_AND_WHITE, _ramp(16)], ids=["black and white", "ramp"])
def test_runs_of_greys(bits: int, compression: int, palette: NDArray[np.uint8]) -> None:
    """Runs are looked up as rows are."""
    value = 0x01 if bits == 8 else 0x10
    rows = bytes([8, value, 0, 0, 8, 0, 0, 1])

    data = _write((2, 8), bits, rows, compression=compression, palette=palette)

    row = [1] * 8 if bits == 8 else [1, 0] * 4
    _assert_pixels(data, palette[np.array([[0] * 8, row])], compression)


def test_what_no_palette_has_is_refused() -> None:
    """An index beyond the palette, runs of another depth, and an alpha of 16 bits name no pixel."""
    rows = _pad(np.array([[3, 0]], np.uint8))
    for data, code in (
        (_write((1, 2), 8, rows, palette=_ramp(3)), ErrorCode.CORRUPT),
        (_write((1, 2), 8, rows, compression=_RLE4, palette=_ramp(4)), ErrorCode.CORRUPT),
        (
            _write((1, 2), 16, rows, _V5, _BITFIELDS, (0x7C00, 0x3E0, 0x1F, 0x8000)),
            ErrorCode.UNSUPPORTED_MODE,
        ),
        (_write((1, 2), 24, bytes(8)).replace(struct.pack("<I", 54), bytes(4)), ErrorCode.CORRUPT),
    ):
        with pytest.raises(ImageError) as found:
            decode_image(data, _LIMIT)
        assert found.value.code == code


@pytest.mark.parametrize("header", [_CORE, _INFO, _V2, _V3, _V4, _V5])
def test_24_bits(header: int) -> None:
    """Blue, green and red of 8 bits each are read right, under every header."""
    for size in _SIZES:
        pixels = random_pixels(1, *size, 3)
        rows = pixels[..., ::-1].reshape(size[0], -1)
        _assert_pixels(_write(size, 24, _pad(rows), header), pixels, size)


@pytest.mark.parametrize("header", [_INFO, _V3, _V4, _V5])
def test_32_bits_without_masks(header: int) -> None:
    """The fourth byte of 32 bits means nothing if no mask says so."""
    for size in _SIZES:
        stored = random_pixels(2, *size, 4)
        expected = stored[..., 2::-1]
        _assert_pixels(_write(size, 32, _pad(stored.reshape(size[0], -1)), header), expected, size)


# The masks of what programs write; the mask of alpha comes last.
_KNOWN_MASKS = (
    (0xFF0000, 0xFF00, 0xFF, 0),
    (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
    (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
    (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
    (0xFF000000, 0xFF0000, 0xFF00, 0),
    (0xFF00, 0xFF0000, 0xFF000000, 0),
)
_WHOLE_BYTES = [
    tuple(masks) for masks in itertools.permutations((0xFF, 0xFF00, 0xFF0000, 0xFF000000))
]


def _values(stored: NDArray[np.int64], mask: int) -> NDArray[np.int64]:
    shift = (mask & -mask).bit_length() - 1
    return (stored & mask) >> shift


@pytest.mark.parametrize("header", [_INFO, _V2, _V3, _V4, _V5])
@pytest.mark.parametrize("kind", ["opaque", "transparent", "never set"])
def test_32_bits_with_masks(header: int, kind: str) -> None:
    """Under masks the bytes are read as they say, laid over white, or refused: never else.

    An alpha that is 0 everywhere was never set, and is left out.
    """
    refused, codes = set(), set()
    for masks in (*_KNOWN_MASKS, *_WHOLE_BYTES, *((*one[:3], 0) for one in _WHOLE_BYTES)):
        given = masks if header >= _V3 else masks[:3]
        alpha_mask = masks[3] if header >= _V3 else 0
        stored = np.random.default_rng(5).integers(0, 1 << 32, (3, 5))
        if kind != "transparent":
            stored &= ~alpha_mask
            stored |= alpha_mask if kind == "opaque" else 0
        colours = np.stack([_values(stored, mask) for mask in masks[:3]], axis=-1)
        if alpha_mask and kind == "transparent":
            alpha = _values(stored, alpha_mask)[..., None]
            colours = (colours * alpha + 255 * (255 - alpha) + 127) // 255
        rows = stored.astype("<u4").view(np.uint8).reshape(3, -1)
        data = _write((3, 5), 32, _pad(rows), header, _BITFIELDS, given)
        try:
            found = decode_image(data, _LIMIT).astype(int)
        except ImageError as error:
            refused.add(given)
            codes.add(error.code)
            continue
        tolerance = 1 if kind == "transparent" else 0
        assert np.abs(found - colours).max() <= tolerance, (header, given)
    usual = set(_KNOWN_MASKS[:4]) if header >= _V3 else {_KNOWN_MASKS[0][:3]}
    assert not refused & usual
    assert codes <= {ErrorCode.UNSUPPORTED_MODE}


@pytest.mark.parametrize(
    ("masks", "compression"),
    [((), _RGB), ((0x7C00, 0x3E0, 0x1F), _BITFIELDS), ((0xF800, 0x7E0, 0x1F), _BITFIELDS)],
)
def test_16_bits(masks: tuple[int, ...], compression: int) -> None:
    """Five or six bits are spread over the range."""
    used = masks or (0x7C00, 0x3E0, 0x1F)
    for size in _SIZES:
        stored = np.random.default_rng(7).integers(0, 1 << 16, size)
        shown = [
            _values(stored, mask) * 255 // (mask >> ((mask & -mask).bit_length() - 1))
            for mask in used
        ]
        rows = stored.astype("<u2").view(np.uint8).reshape(size[0], -1)
        data = _write(size, 16, _pad(rows), compression=compression, masks=masks)
        _assert_pixels(data, np.stack(shown, axis=-1), size)


def _run_lengths(indices: NDArray[np.int64], bits: int) -> bytes:
    """Pack rows as runs of one and as absolute runs in turn."""
    packed = b""
    for number, row in enumerate(indices[::-1].tolist()):
        if number % 2 or len(row) < 3:
            packed += b"".join(bytes([1, value << 4 if bits == 4 else value]) for value in row)
        else:
            values = bytes(row)
            if bits == 4:
                even = row + [0] * (len(row) % 2)
                values = bytes(a << 4 | b for a, b in zip(even[::2], even[1::2], strict=True))
            packed += bytes([0, len(row)]) + values + b"\0" * (len(values) % 2)
        packed += b"\0\0"
    return packed[:-2] + b"\0\1"


@pytest.mark.parametrize(("bits", "compression"), [(8, _RLE8), (4, _RLE4)])
def test_run_lengths(bits: int, compression: int) -> None:
    """Pictures that are packed as run lengths are unpacked."""
    palette = random_pixels(bits, 1 << bits, 3)
    for size in _SIZES:
        indices = np.random.default_rng(bits).integers(0, 1 << bits, size)
        data = _write(size, bits, _run_lengths(indices, bits), _INFO, compression, palette=palette)
        _assert_pixels(data, palette[indices], size)


@pytest.mark.parametrize(("runs", "expected"), [
    (b"\x03\1\0\0\0\0\3\2\0\1", [[2, 2, 2], [0, 0, 0], [1, 1, 1]]),
    (b"\3\1\0\1", [[0, 0, 0], [0, 0, 0], [1, 1, 1]]),
    (b"\0\2\1\1\2\5\0\1", [[0, 0, 0], [0, 5, 5], [0, 0, 0]]),
    (b"\1\1\0\2\1\0\1\2\0\1", [[0, 0, 0], [0, 0, 0], [1, 0, 2]]),
    (b"\0\3\7\5\6\0\0\0\3\1\0\1", [[0, 0, 0], [1, 1, 1], [7, 5, 6]]),
], ids=["an empty row", "an early end", "a step up", "a step right", "as they are"])  # fmt: skip
def test_runs_as_they_are_defined(runs: bytes, expected: list[list[int]]) -> None:
    """What is stepped over has colour 0; rows are stored from the bottom."""
    palette = random_pixels(0, 8, 3)
    data = _write((3, 3), 8, runs, compression=_RLE8, palette=palette)
    _assert_pixels(data, palette[np.array(expected)], runs)


@pytest.mark.parametrize(("runs", "code"), [
    (b"\4\1\0\1", ErrorCode.CORRUPT),
    (b"\0\4\1\1\1\1\0\1", ErrorCode.CORRUPT),
    (b"\0\2\0\3\1\1\0\1", ErrorCode.CORRUPT),
    (b"\3\1\0\0\3\1\0\0\3\1", ErrorCode.TRUNCATED),
    (b"\3\1" + bytes(40), ErrorCode.TRUNCATED),
], ids=["beyond its row", "as they are, beyond", "above", "no end", "zeros"])  # fmt: skip
def test_runs_that_lead_astray_are_refused(runs: bytes, code: ErrorCode) -> None:
    """A run outside the picture, and a picture that does not end."""
    data = _write((3, 3), 8, runs, compression=_RLE8, palette=random_pixels(0, 8, 3))
    with pytest.raises(ImageError) as caught:
        decode_image(data, _LIMIT)
    assert caught.value.code == code


def test_runs_from_the_top_down_are_refused() -> None:
    """Microsoft's definition has none, so that readers show them in either direction."""
    palette = random_pixels(0, 8, 3)
    data = _write((3, 3), 8, b"\3\1\0\1", compression=_RLE8, palette=palette, upside_up=True)
    with pytest.raises(ImageError, match="top down") as caught:
        decode_image(data, _LIMIT)
    assert caught.value.code == ErrorCode.CORRUPT


@pytest.mark.parametrize(
    ("bits", "compression", "masks"),
    [(24, 4, ()), (24, 5, ()), (16, _BITFIELDS, (0xF00, 0xF0, 0xF)), (64, _RGB, ()), (2, _RGB, ())],
    ids=["a JPEG inside", "a PNG inside", "4 bits each", "64 bits", "2 bits"],
)
def test_exotic_ones_are_named(bits: int, compression: int, masks: tuple[int, ...]) -> None:
    """Layouts and packings that are not read are `unsupported_mode`, and not called damaged."""
    data = _write((2, 2), bits, bytes(64), _INFO, compression, masks)
    with pytest.raises(ImageError, match="Unsupported BMP") as caught:
        decode_image(data, _LIMIT)
    assert caught.value.code == ErrorCode.UNSUPPORTED_MODE


@pytest.mark.parametrize("missing", [2, 4, 40])
def test_a_bmp_that_ends_early_is_truncated(missing: int) -> None:
    """A file that lacks pixels, and not only what fills the last row up, is `truncated`."""
    rows = _pad(random_pixels(1, 9, 27))
    data = _write((9, 9), 24, rows)
    with pytest.raises(ImageError) as caught:
        decode_image(data[:-missing], _LIMIT)
    assert caught.value.code == ErrorCode.TRUNCATED


def test_an_absurd_width_is_too_many_pixels() -> None:
    """A width of 4,294,967,169, which is -127, is too large, and said to be."""
    data = _write((8, -127), 24, bytes(192))
    with pytest.raises(ImageError, match="8 x 4294967169 = ") as caught:
        decode_image(data, _LIMIT)
    assert caught.value.code == ErrorCode.TOO_MANY_PIXELS
