"""PNG: every kind is decoded to the pixels that it was made of, whatever stands beside them."""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import ErrorCode, ImageError
from pipeline.images.decode import decode_image
from tests.disk_runs import encode, random_pixels
from tests.png_writer import SIGNATURE, chunk, packed_rows, with_rows, write_png

_LIMIT = 1 << 20
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGBA = 0, 2, 3, 4, 6
_SAMPLES = {_GREY: 1, _RGB: 3, _PALETTE: 1, _GREY_ALPHA: 2, _RGBA: 4}
_DEPTHS = {
    _GREY: (1, 2, 4, 8, 16),
    _RGB: (8, 16),
    _PALETTE: (1, 2, 4, 8),
    _GREY_ALPHA: (8, 16),
    _RGBA: (8, 16),
}
_KINDS = [(colour_type, depth) for colour_type, depths in _DEPTHS.items() for depth in depths]
_SIZES = ((1, 1), (1, 9), (9, 1), (5, 3), (8, 8), (13, 21))


def _samples(seed: int, size: tuple[int, int], number: int, depth: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, 1 << depth, (*size, number))


def _in_8_bits(samples: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
    return samples >> (depth - 8) if depth >= 8 else samples * 255 // ((1 << depth) - 1)


def _over_white(colours: NDArray[np.int64], alpha: NDArray[np.int64]) -> NDArray[np.int64]:
    return (colours * alpha + 255 * (255 - alpha) + 127) // 255


def _files(
    colour_type: int, depth: int, *chunks: bytes
) -> Iterator[tuple[bytes, NDArray[np.int64]]]:
    """Write noise of every size, interlaced and not, and say what the file holds."""
    for seed, size in enumerate(_SIZES):
        samples = _samples(seed, size, _SAMPLES[colour_type], depth)
        for interlaced in (False, True):
            yield write_png(samples, depth, colour_type, chunks, interlaced=interlaced), samples


def _assert_pixels(data: bytes, expected: NDArray[np.int64], tolerance: int = 0) -> None:
    found = decode_image(data, _LIMIT).astype(int)
    assert found.shape == (*expected.shape[:2], 3)
    assert np.abs(found - expected).max() <= tolerance


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("colour_type", "depth"), _KINDS)
def test_rows_that_are_not_there_are_no_pixels(
    colour_type: int, depth: int, *, interlaced: bool
) -> None:
    """Data that end in order, by any number of rows too early, are refused; whole ones are not."""
    samples = np.ones((13, 21, _SAMPLES[colour_type]), np.int64)
    palette = [chunk(b"PLTE", bytes(6))] if colour_type == _PALETTE else []
    rows = list(packed_rows(samples, depth, interlaced=interlaced))
    for kept in (*range(len(rows) - 1, 0, -3), 0):
        data = with_rows(rows[:kept], samples, depth, colour_type, palette, interlaced=interlaced)
        with pytest.raises(ImageError) as refused:
            decode_image(data, _LIMIT)
        assert refused.value.code in ("truncated", "corrupt")
    black = write_png(0 * samples, depth, colour_type, palette, interlaced=interlaced)
    assert decode_image(black, _LIMIT).shape == (13, 21, 3)


@pytest.mark.parametrize(("colour_type", "depth"), [one for one in _KINDS if one[0] != _PALETTE])
def test_every_kind(colour_type: int, depth: int) -> None:
    """Grey and colour of every depth, with alpha or without, interlaced or not, are read right."""
    for data, samples in _files(colour_type, depth):
        values = _in_8_bits(samples, depth)
        if colour_type in (_GREY_ALPHA, _RGBA):
            # Pillow and the formula above round a mixture with white differently.
            _assert_pixels(data, _over_white(values[..., :-1], values[..., -1:]), tolerance=1)
        else:
            _assert_pixels(data, values)


@pytest.mark.parametrize("depth", _DEPTHS[_PALETTE])
@pytest.mark.parametrize("alphas", [None, 1, 2])
def test_palettes(depth: int, alphas: int | None) -> None:
    """Colours are looked up, and laid over white by the alphas that stand beside them."""
    palette = random_pixels(depth, 1 << depth, 3)
    alpha = np.full(1 << depth, 255)
    chunks = [chunk(b"PLTE", palette.tobytes())]
    if alphas:
        alpha[:alphas] = (0, 100)[:alphas]
        chunks.append(chunk(b"tRNS", bytes(alpha[:alphas].tolist())))
    shown = _over_white(palette.astype(np.int64), alpha[:, None])
    for data, samples in _files(_PALETTE, depth, *chunks):
        _assert_pixels(data, shown[samples[..., 0]], tolerance=1 if alphas else 0)


@pytest.mark.parametrize("depth", _DEPTHS[_GREY])
def test_a_transparent_grey_becomes_white(depth: int) -> None:
    """The one grey that is transparent is white, at every depth; bits above are not looked at."""
    for value in {0, 1, (1 << depth) - 1, 0x1234 & ((1 << depth) - 1)}:
        above = 0 if depth == 16 else 1 << depth
        transparency = chunk(b"tRNS", struct.pack(">H", value | above))
        for data, samples in _files(_GREY, depth, transparency):
            shown = np.where(samples == value, 255, _in_8_bits(samples, depth))
            _assert_pixels(data, shown)


@pytest.mark.parametrize("depth", _DEPTHS[_RGB])
@pytest.mark.parametrize("suggested", [False, True])
def test_a_transparent_colour_becomes_white(depth: int, *, suggested: bool) -> None:
    """The one colour that is transparent is white, in all its bits; a suggested palette is not."""
    samples = _samples(0, (4, 6), 3, depth)
    samples[1, 2] = samples[0, 0]
    samples[2, 2] = samples[0, 0] ^ [0, 0, 1]
    chunks = [chunk(b"PLTE", bytes(6))] if suggested else []
    chunks.append(chunk(b"tRNS", struct.pack(">3H", *samples[0, 0])))
    shown = _in_8_bits(samples, depth)
    shown[0, 0] = shown[1, 2] = 255
    for interlaced in (False, True):
        _assert_pixels(write_png(samples, depth, _RGB, chunks, interlaced=interlaced), shown)


_BESIDE = {
    "a profile of 3 MB": chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(3 << 20))),
    "a text of 3 MB": chunk(
        b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * 3000000)
    ),
    "a text of 3 MB that is not packed": chunk(b"tEXt", b"Comment\0" + b"x" * 3_000_000),
    "a wrong checksum": chunk(b"tEXt", b"Comment\0text", checksum=1),
    "a text that can't be unpacked": chunk(b"zTXt", b"Comment\0\0" + b"garbage"),
    "a broken profile": chunk(b"iCCP", b"name\0\0garbage"),
    "a broken density": chunk(b"pHYs", b"\0"),
    "an animation of no frames": chunk(b"acTL", bytes(8)),
    "a broken EXIF": chunk(b"eXIf", b"garbage"),
    "an EXIF of a wrong checksum": chunk(b"eXIf", b"II*\0\x08\0\0\0", checksum=1),
}


@pytest.mark.parametrize("name", _BESIDE)
def test_what_stands_beside_the_pixels_costs_no_picture(name: str) -> None:
    """Metadata may be large, damaged or of a wrong checksum: the pixels are whole."""
    for data, samples in _files(_RGB, 8, _BESIDE[name]):
        _assert_pixels(data, samples)


def _refusal(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode_image(data, _LIMIT)
    return caught.value


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT", b"PLTE", b"tRNS"])
def test_a_wrong_checksum_of_what_counts_is_corrupt(kind: bytes) -> None:
    """A chunk that decides the pixels is not believed with a wrong checksum."""
    chunks = (chunk(b"PLTE", bytes(range(6))), chunk(b"tRNS", b"\0"))
    data = write_png(_samples(0, (4, 4), 1, 1), 1, _PALETTE, chunks)
    decode_image(data, _LIMIT)
    place = data.index(kind)
    end = place + 4 + int.from_bytes(data[place - 4 : place], "big")
    refusal = _refusal(data[:end] + bytes(4) + data[end + 4 :])
    assert refusal.code == ErrorCode.CORRUPT
    assert "checksum" in refusal.message


def test_a_colour_beyond_the_palette_is_corrupt() -> None:
    """A pixel whose colour is not in the palette has none."""
    data = write_png(np.array([[[0], [2]]]), 8, _PALETTE, [chunk(b"PLTE", bytes(6))])
    assert _refusal(data).code == ErrorCode.CORRUPT


def test_a_transparency_of_another_kind_is_corrupt() -> None:
    """A transparent colour of the wrong number of samples is no colour."""
    data = write_png(_samples(0, (2, 2), 3, 8), 8, _RGB, [chunk(b"tRNS", bytes(2))])
    assert _refusal(data).code == ErrorCode.CORRUPT


_PIXELS = random_pixels(4, 8, 8, 1)
_DATA = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in _PIXELS)))
_END = chunk(b"IEND", b"")
_COLOURS = random_pixels(6, 256, 3)
_PLTE = chunk(b"PLTE", _COLOURS.tobytes())


def _header(colour_type: int, methods: bytes = bytes(3), side: int = 8) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBB", side, side, 8, colour_type) + methods)


@pytest.mark.parametrize(
    "chunks",
    [
        (_header(_GREY), _header(_GREY, side=4000), _DATA, _END),
        (_header(_GREY), _header(_RGB), _DATA, _END),
        (_header(_PALETTE), _PLTE, _PLTE, _DATA, _END),
        (_header(_PALETTE), _PLTE, _DATA, _PLTE, _END),
        (_header(_PALETTE), _DATA, _PLTE, _END),
        (_header(_PALETTE), chunk(b"PLTE", bytes(769)), _DATA, _END),
        (_header(_PALETTE), chunk(b"PLTE", b""), _DATA, _END),
        (_header(_GREY), _DATA, chunk(b"tEXt", b"a\0b"), _DATA, _END),
        *((_header(_GREY, methods), _DATA, _END) for methods in (b"\1\0\0", b"\0\1\0", b"\0\0\2")),
    ],
)
def test_chunks_that_may_not_stand_where_they_do_are_refused(chunks: tuple[bytes, ...]) -> None:
    """A second header or palette, a palette behind the data, data in pieces, unknown methods."""
    assert _refusal(SIGNATURE + b"".join(chunks)).code in ("corrupt", "unsupported_mode")


@pytest.mark.parametrize(
    ("colour_type", "chunks"),
    [
        (_GREY, (_DATA, chunk(b"tRNS", bytes([0, int(_PIXELS[0, 0, 0])])))),
        (_PALETTE, (_PLTE, _DATA, chunk(b"tRNS", bytes(256)))),
        (_PALETTE, (chunk(b"tRNS", bytes(256)), _PLTE, _DATA)),
        (_PALETTE, (_PLTE, chunk(b"tRNS", bytes(257)), _DATA)),
        (_PALETTE, (_PLTE, chunk(b"tRNS", b"\xff" * 256), chunk(b"tRNS", bytes(256)), _DATA)),
    ],
)
def test_a_transparency_in_the_wrong_place_is_passed_over(
    colour_type: int, chunks: tuple[bytes, ...]
) -> None:
    """Behind the data, before its palette or a second time it counts for nothing, as in libpng.

    So it does where it is longer than its palette.
    """
    data = SIGNATURE + _header(colour_type) + b"".join(chunks) + _END
    colours = _COLOURS if colour_type == _PALETTE else np.repeat(np.arange(256)[:, None], 3, axis=1)
    _assert_pixels(data, colours[_PIXELS[..., 0]])


def test_a_transparency_beside_alpha_is_passed_over() -> None:
    """Pixels that have an alpha of their own are those of the file without it."""
    for colour_type in (_GREY_ALPHA, _RGBA):
        for plain, samples in _files(colour_type, 8):
            data = write_png(samples, 8, colour_type, [chunk(b"tRNS", bytes(2))])
            assert np.array_equal(decode_image(data, _LIMIT), decode_image(plain, _LIMIT))


def test_damaged_data_are_corrupt_whoever_finds_it() -> None:
    """One byte that is wrong anywhere in the data of a PNG is a refusal and no other error."""
    grey = np.zeros((9, 30, 1), np.int64)
    data = write_png(grey, 8, _GREY)
    start = data.index(b"IDAT") + 4
    length = int.from_bytes(data[start - 8 : start - 4], "big")
    for place in range(start, start + length):
        content = bytearray(data[start : start + length])
        content[place - start] ^= 0x41
        broken = data[: start - 8] + chunk(b"IDAT", bytes(content)) + _END
        assert _refusal(broken).code in ("corrupt", "truncated")


def test_apples_own_png_is_named() -> None:
    """A PNG that Xcode has rewritten is `unsupported_mode`, and the message says what it is."""
    data = write_png(_samples(0, (2, 2), 3, 8), 8, _RGB)
    refusal = _refusal(SIGNATURE + chunk(b"CgBI", bytes(4)) + data[len(SIGNATURE) :])
    assert refusal.code == ErrorCode.UNSUPPORTED_MODE
    assert "CgBI" in refusal.message


def test_too_many_chunks_are_too_slow() -> None:
    """A file of millions of empty chunks is refused before they are walked through."""
    data = write_png(_samples(0, (2, 2), 3, 8), 8, _RGB, [chunk(b"tEXt", b"") * 70_000])
    assert _refusal(data).code == ErrorCode.TOO_SLOW


def test_every_png_that_lacks_an_end_is_truncated() -> None:
    """However little is missing, the file is `truncated`."""
    data = encode(Image.fromarray(random_pixels(1, 5, 7, 3)), "PNG")
    for length in range(1, len(data)):
        if length >= len(SIGNATURE):
            assert _refusal(data[:length]).code == ErrorCode.TRUNCATED, length
