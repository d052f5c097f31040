"""TIFF: every layout is decoded to the pixels that it was made of, or refused by name."""

import dataclasses
import io
import itertools
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import simplejpeg
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import ErrorCode, ImageError
from pipeline.images.decode import decode_image
from tests.disk_runs import encode
from tests.tiff_writer import (
    COMPRESSIONS,
    DEFLATE,
    LZMA,
    LZW,
    PACKBITS,
    ZSTD,
    Layout,
    assemble,
    pack,
    segments_of,
    write_tiff,
)

_LIMIT = 1 << 20
_HEIGHT, _WIDTH = 13, 21
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _LAB = 0, 1, 2, 3, 5, 6, 8
_SEGMENTS = ((1000, None), (5, None), (16, 16))
_ORDERS = ("<", ">")
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _CMYK: 4, _YCBCR: 3, _LAB: 3}
_UNSPECIFIED, _PREMULTIPLIED, _ALPHA = 0, 1, 2
_PREDICTED = (LZW, DEFLATE, LZMA, ZSTD)


def _samples(bits: int, number: int, *, premultiplied: bool = False) -> NDArray[np.int64]:
    """Draw noise over the whole range, both of its ends included."""
    most = (1 << bits) - 1
    found = np.random.default_rng(bits * 8 + number).integers(
        0, most, (_HEIGHT, _WIDTH, number), endpoint=True
    )
    found[0, 0], found[0, 1] = 0, most
    if premultiplied:
        found[..., :-1] = found[..., :-1] * found[..., -1:] // most
    return found


def _in_8_bits(samples: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    return samples >> (bits - 8) if bits >= 8 else samples * 255 // ((1 << bits) - 1)


def _expected(samples: NDArray[np.int64], layout: Layout) -> NDArray[np.int64]:
    """Say what TIFF 6.0 says of the samples: upper 8 bits of RGB, over white."""
    values = _in_8_bits(samples, layout.bits)
    colours = values[..., : _COLOURS[layout.photometric]]
    if layout.photometric == _WHITE_IS_ZERO:
        colours = 255 - colours
    if layout.photometric in (_CMYK, _YCBCR, _LAB):
        mode = {_CMYK: "CMYK", _YCBCR: "YCbCr", _LAB: "LAB"}[layout.photometric]
        planes = [Image.fromarray(plane) for plane in np.moveaxis(colours, -1, 0).astype(np.uint8)]
        colours = np.asarray(Image.merge(mode, planes).convert("RGB")).astype(np.int64)
    alpha = values[..., -1:]
    if layout.extra[:1] == (_ALPHA,):
        colours = (colours * alpha + 255 * (255 - alpha) + 127) // 255
    elif layout.extra[:1] == (_PREMULTIPLIED,):
        colours = colours + 255 - alpha
    return np.broadcast_to(colours, (_HEIGHT, _WIDTH, 3))


def _refusal(data: bytes, expected: NDArray[np.int64], tolerance: int, name: object) -> str:
    """Return why it is refused, or '' if it is decoded right."""
    try:
        found = decode_image(data, _LIMIT)
    except ImageError as error:
        refusal = error
    else:
        refusal = None
    if refusal is not None:
        assert refusal.code == ErrorCode.UNSUPPORTED_MODE, (name, refusal)
        return refusal.message
    assert found.shape == expected.shape, name
    assert np.abs(found.astype(int) - expected).max() <= tolerance, name
    return ""


def _ways() -> Iterator[dict[str, object]]:
    """Every way of laying samples out; big TIFFs and small ones in turn."""
    ways = itertools.product(COMPRESSIONS, (False, True), _ORDERS, _SEGMENTS)
    for index, (compression, planar, order, segment) in enumerate(ways):
        yield {
            "compression": compression,
            "planar": planar,
            "order": order,
            "segment": segment,
            "big": index % 3 == 0,
        }


def _check(
    photometric: int, bits: int, extra: tuple[int, ...] = (), predictor: int = 1, **fields: Any
) -> set[str]:
    """Decode samples laid out in every way; return the reasons of refusals."""
    number = _COLOURS[photometric] + len(extra)
    samples = _samples(bits, number, premultiplied=extra[:1] == (_PREMULTIPLIED,))
    refusals = set()
    for way in _ways():
        if predictor != 1 and way["compression"] not in _PREDICTED:
            continue
        layout = Layout(bits, photometric, extra=extra, predictor=predictor, **way, **fields)
        # Pillow and the formula above round a mixture with white differently.
        tolerance = 1 if extra[:1] == (_ALPHA,) else 0
        data, expected = write_tiff(samples, layout), _expected(samples, layout)
        refusals.add(_refusal(data, expected, tolerance, layout))
    return refusals


_GREY_BITS = (1, 2, 4, 8, 10, 12, 14, 16)


@pytest.mark.parametrize("photometric", [_WHITE_IS_ZERO, _BLACK_IS_ZERO])
@pytest.mark.parametrize("bits", _GREY_BITS)
def test_grey(photometric: int, bits: int) -> None:
    """Grey of 1 to 16 bits is read right in either sense of white, however it is laid out."""
    assert _check(photometric, bits) == {""}


@pytest.mark.parametrize("bits", _GREY_BITS)
@pytest.mark.parametrize("extra", [(_ALPHA,), (_PREMULTIPLIED,), (_UNSPECIFIED,)])
def test_grey_and_alpha(bits: int, extra: tuple[int, ...]) -> None:
    """Grey is laid over white by its alpha, premultiplied or not; other samples are left out."""
    assert _check(_BLACK_IS_ZERO, bits, extra) == {""}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    "extra", [(), (_ALPHA,), (_PREMULTIPLIED,), (_UNSPECIFIED,), (_UNSPECIFIED,) * 2]
)
def test_colour(bits: int, extra: tuple[int, ...]) -> None:
    """RGB of 8 and 16 bits, in planes or not, with and without alpha, is read right."""
    assert _check(_RGB, bits, extra) == {""}


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("photometric", [_BLACK_IS_ZERO, _RGB, _CMYK])
def test_differences(photometric: int, bits: int) -> None:
    """Samples that are stored as differences (predictor 2) are added up."""
    assert _check(photometric, bits, predictor=2) == {""}


@pytest.mark.parametrize(("photometric", "bits"), [(0, 1), (1, 2), (1, 12), (2, 8), (2, 16)])
def test_bits_from_the_other_end(photometric: int, bits: int) -> None:
    """Bytes whose bits run the other way (fill order 2) are read right."""
    assert _check(photometric, bits, tags={266: [2]}) == {""}


@pytest.mark.parametrize("bits", [8, 16])
def test_inks(bits: int) -> None:
    """CMYK of 8 and 16 bits, in planes or not, is read right."""
    assert _check(_CMYK, bits) == {""}


@pytest.mark.parametrize("scale", [1, 256, 257])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_palettes(bits: int, scale: int) -> None:
    """Colours are looked up, also in palettes whose values are 0 to 255."""
    indices = _samples(bits, 1)
    palette = np.random.default_rng(bits).integers(0, 256, (1 << bits, 3))
    palette[:2] = [[0, 1, 2], [255, 254, 253]]
    tags = {320: (palette * scale).T.ravel().tolist()}
    for way in _ways():
        layout = Layout(bits, _PALETTE, tags=tags, **way)
        assert not _refusal(write_tiff(indices, layout), palette[indices[..., 0]], 0, layout)


def test_luminance() -> None:
    """YCbCr without subsampling and L*a*b* are read right; YCbCr in planes is refused."""
    assert _check(_YCBCR, 8, tags={530: [1, 1]}) == {"", "TIFF: YCbCr in planes"}
    lab = _samples(8, 3)
    for way in _ways():
        layout = Layout(8, _LAB, **way)
        signed = np.concatenate([lab[..., :1], lab[..., 1:] ^ 128], axis=-1)
        assert not _refusal(write_tiff(signed, layout), _expected(lab, layout), 0, layout)


def _shared(plane: NDArray[np.int64], down: int, across: int) -> NDArray[np.int64]:
    return plane.repeat(down, 0).repeat(across, 1)[:_HEIGHT, :_WIDTH]


def _blocks(luma: NDArray[np.int64], chroma: NDArray[np.int64], down: int, across: int) -> bytes:
    """Pack YCbCr as TIFF 6.0, section 21 shows it: the luma of a block, then its Cb and its Cr."""
    packed = []
    for row, column in np.ndindex(chroma.shape[:2]):
        block = luma[row * down :, column * across :][:down, :across]
        missing = ((0, down - block.shape[0]), (0, across - block.shape[1]))
        packed += [*np.pad(block, missing).ravel(), *chroma[row, column]]
    return bytes(packed)


@pytest.mark.parametrize("across", [1, 2, 4])
@pytest.mark.parametrize("down", [1, 2, 4])
@pytest.mark.parametrize("order", _ORDERS)
def test_shared_colour_differences(across: int, down: int, order: str) -> None:
    """YCbCr whose pixels share colour differences, uncompressed, is read right."""
    luma = _samples(8, 1)[..., 0]
    blocks = (-(-_HEIGHT // down), -(-_WIDTH // across), 2)
    chroma = np.random.default_rng(3).integers(0, 256, blocks)
    whole = [luma, *(_shared(chroma[..., index], down, across) for index in (0, 1))]
    layout = Layout(8, _YCBCR, tags={530: [across, down]}, order=order)
    data = assemble((_HEIGHT, _WIDTH, 3), layout, [_blocks(luma, chroma, down, across)])
    assert not _refusal(data, _expected(np.stack(whole, axis=-1), layout), 0, layout)


_REFUSED = {
    "bits": [
        (photometric, bits, ())
        for photometric in _COLOURS
        for bits in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 24, 32)
        if photometric > _BLACK_IS_ZERO or bits not in _GREY_BITS
    ],
    "alpha": [
        (photometric, 8, (extra,))
        for photometric in (_WHITE_IS_ZERO, _CMYK, _YCBCR, _LAB)
        for extra in (_ALPHA, _PREMULTIPLIED)
    ],
    "extra samples": [(_RGB, 8, (_UNSPECIFIED, _ALPHA)), (_RGB, 8, (7,)), (_RGB, 8, (0,) * 5)],
}


@pytest.mark.parametrize("kind", _REFUSED)
def test_what_is_not_known_is_refused(kind: str) -> None:
    """Depths, alphas and samples that nobody defines are `unsupported_mode`, in words."""
    for photometric, bits, extra in _REFUSED[kind]:
        samples = _samples(bits, _COLOURS[photometric] + len(extra))
        for planar in (False, True):
            layout = Layout(bits, photometric, extra=extra, planar=planar)
            refusal = _refusal(write_tiff(samples, layout), samples, -1, layout)
            assert refusal.startswith("TIFF: "), layout


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({259: [34887]}, "LERC compression"),
        ({259: [34712]}, "JPEG2000 compression"),
        ({259: [6]}, "OJPEG compression"),
        ({259: [50001]}, "WEBP compression"),
        ({259: [12345]}, "compression 12345 compression"),
        ({339: [2, 2, 2]}, "samples of INT"),
        ({339: [3, 3, 3]}, "samples of IEEEFP"),
        ({262: [32844]}, "LOGL colours"),
        ({262: [9]}, "ICCLAB colours"),
        ({317: [3]}, "predictor 3"),
        ({266: [2], 317: [2], 259: [8]}, "fill order 2 with predictor 2"),
        ({266: [3]}, "fill order 3"),
        ({32997: [2]}, "2 images in depth"),
        ({277: [9], 258: [8] * 9}, "9 samples per pixel"),
    ],
)
def test_the_name_of_what_is_not_read_is_said(tags: dict[int, list[int]], words: str) -> None:
    """A compression, sample format or colour space that is not read is named."""
    with pytest.raises(ImageError, match=words) as caught:
        decode_image(write_tiff(_samples(8, 3), Layout(8, _RGB, tags=tags)), _LIMIT)
    assert caught.value.code == ErrorCode.UNSUPPORTED_MODE


def test_raw_photographs_are_another_format() -> None:
    """A DNG, by its tag or by its mosaic of colours, is `unsupported_format`."""
    for tags in ({50706: [1, 4, 0, 0]}, {262: [32803]}, {262: [34892]}):
        with pytest.raises(ImageError, match="raw photograph") as caught:
            decode_image(write_tiff(_samples(8, 3), Layout(8, _RGB, tags=tags)), _LIMIT)
        assert caught.value.code == ErrorCode.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("segment", _SEGMENTS)
def test_a_tiff_that_ends_early_is_truncated(
    compression: int, segment: tuple[int, int | None]
) -> None:
    """Wherever it is cut off, a file without its end is `truncated`."""
    layout = Layout(8, _RGB, compression=compression, segment=segment)
    data = write_tiff(_samples(8, 3), layout)
    for end in (4, 9, len(data) // 2, len(data) - 30, len(data) - 9):
        with pytest.raises(ImageError) as caught:
            decode_image(data[:end], _LIMIT)
        assert caught.value.code == ErrorCode.TRUNCATED, end


def test_strips_beyond_the_end_are_truncated() -> None:
    """Where the directory stands in front, a file that lacks pixels is `truncated` as well."""
    layout = Layout(8, _RGB, segment=(5, None))
    data = bytearray(write_tiff(_samples(8, 3), layout))
    third = data.index(struct.pack("<3I", 8, 8 + 315, 8 + 630)) + 8
    data[third : third + 4] = struct.pack("<I", len(data) - 10)
    with pytest.raises(ImageError, match="strip or tile 2 reaches to byte") as caught:
        decode_image(bytes(data), _LIMIT)
    assert caught.value.code == ErrorCode.TRUNCATED


@pytest.mark.parametrize("segment", [(5, None), (16, 16)])
def test_a_strip_or_tile_that_is_left_out_is_named(segment: tuple[int, int | None]) -> None:
    """GDAL leaves tiles without data out, and old writers their lengths: nothing is damaged."""
    samples = _samples(8, 3)
    layout = Layout(8, _RGB, segment=segment)
    whole = tifffile.TiffFile(io.BytesIO(write_tiff(samples, layout))).pages.first
    number = len(whole.databytecounts)
    data = assemble(samples.shape, layout, [b"", *[b"x"] * (number - 1)])
    with pytest.raises(ImageError, match="strip or tile 0 is left out, or its length") as caught:
        decode_image(data, _LIMIT)
    assert caught.value.code == ErrorCode.UNSUPPORTED_MODE


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("order", _ORDERS)
def test_a_last_strip_of_as_many_rows_as_the_others_is_read(
    compression: int, order: str, *, planar: bool
) -> None:
    """What stands below the picture's last row is passed over, whatever packs it."""
    samples = _samples(8, 3)
    rows = 4
    assert _HEIGHT % rows
    below = np.full((rows - _HEIGHT % rows, *samples.shape[1:]), 9, samples.dtype)
    layout = Layout(8, _RGB, compression, planar=planar, order=order, segment=(rows, None))
    higher = write_tiff(np.concatenate([samples, below]), layout)
    tag = struct.pack(f"{order}HHI", 257, 4, 1)
    start = higher.index(tag) + len(tag)
    data = higher[:start] + struct.pack(f"{order}I", _HEIGHT) + higher[start + 4 :]

    assert np.array_equal(decode_image(data, _LIMIT), samples)


@pytest.mark.parametrize("compression", [one for one in COMPRESSIONS if one != PACKBITS])
def test_a_strip_that_holds_too_little_is_refused(compression: int) -> None:
    """A strip of fewer rows than it has to have is never filled up."""
    short = write_tiff(_samples(8, 3)[:-2], Layout(8, _RGB, compression=compression))
    height = short.index(b"\x01\x01\x04\0\x01\0\0\0") + 8
    rows = short.index(b"\x16\x01\x04\0\x01\0\0\0") + 8
    data = bytearray(short)
    assert data[height] == data[rows] == _HEIGHT - 2
    data[height] = data[rows] = _HEIGHT
    with pytest.raises(ImageError) as caught:
        decode_image(bytes(data), _LIMIT)
    assert caught.value.code in (ErrorCode.CORRUPT, ErrorCode.TRUNCATED)


# JPEG and fax inside


def _picture(height: int, width: int) -> Image.Image:
    slope = np.linspace(0, 160, width)[None, :, None] * np.array([1, 0.5, 0.2])
    noise = np.random.default_rng(height).integers(0, 90, (height, width, 3))
    return Image.fromarray((slope + noise).astype(np.uint8))


_JPEGS: dict[str, tuple[str, int, dict[str, object], dict[int, list[int]]]] = {
    "grey": ("L", _BLACK_IS_ZERO, {}, {}),
    "RGB": ("RGB", _RGB, {"keep_rgb": True}, {}),
    "YCbCr 4:4:4": ("RGB", _YCBCR, {"subsampling": "4:4:4"}, {530: [1, 1]}),
    "YCbCr 4:2:2": ("RGB", _YCBCR, {"subsampling": "4:2:2"}, {530: [2, 1]}),
    "YCbCr 4:2:0": ("RGB", _YCBCR, {"subsampling": "4:2:0"}, {530: [2, 2]}),
    "progressive": ("RGB", _YCBCR, {"subsampling": "4:2:0", "progressive": True}, {530: [2, 2]}),
}


def _jpegs(name: str, segment: tuple[int, int | None]) -> tuple[list[bytes], Layout]:
    mode, photometric, options, tags = _JPEGS[name]
    size = (32, 48) if segment[1] is None else segment
    number = 1 if segment[1] is None else 6
    layout = Layout(8, photometric, compression=7, segment=segment, tags=tags)
    pictures = [_picture(*size).convert(mode).rotate(index * 90) for index in range(number)]
    return [encode(picture, "JPEG", quality=95, **options) for picture in pictures], layout


def _without_tables(jpeg: bytes) -> tuple[bytes, bytes]:
    """Take the tables out of a JPEG, as TIFF's tag JPEGTables holds them."""
    tables, rest, place = b"\xff\xd8", b"\xff\xd8", 2
    while jpeg[place + 1] != 0xDA:
        end = place + 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        if jpeg[place + 1] in (0xDB, 0xC4):
            tables += jpeg[place:end]
        elif jpeg[place + 1] != 0xE0:
            rest += jpeg[place:end]
        place = end
    return tables + b"\xff\xd9", rest + jpeg[place:]


def _decoded(jpegs: list[bytes], layout: Layout) -> NDArray[np.uint8]:
    parts = [decode_image(jpeg, _LIMIT) for jpeg in jpegs]
    if len(parts) == 1:
        return parts[0]
    return np.vstack([np.hstack(parts[:3]), np.hstack(parts[3:])])


@pytest.mark.parametrize("name", _JPEGS)
@pytest.mark.parametrize("segment", [(32, None), (16, 16)])
@pytest.mark.parametrize("shared", [False, True])
def test_jpegs_inside_equal_jpegs(
    name: str, segment: tuple[int, int | None], *, shared: bool
) -> None:
    """Strips and tiles of JPEG are decoded as files of JPEG are, also with tables in a tag."""
    jpegs, layout = _jpegs(name, segment)
    if name == "progressive":  # each has tables of its own
        jpegs = [jpegs[0]] * len(jpegs)
    expected = _decoded(jpegs, layout)
    parts = jpegs
    if shared:
        tables, _ = _without_tables(jpegs[0])
        layout = dataclasses.replace(layout, tags={**layout.tags, 347: list(tables)})
        parts = [_without_tables(jpeg)[1] for jpeg in jpegs]
    height, width = expected.shape[:2]
    number = 1 if layout.photometric == _BLACK_IS_ZERO else 3
    data = assemble((height, width, number), layout, parts)
    assert decode_image(data, _LIMIT).tolist() == expected.tolist()


def test_inks_in_a_jpeg_inside() -> None:
    """CMYK in JPEG in TIFF, as libtiff writes it, is the picture that it was made of."""
    picture = _picture(32, 48).convert("CMYK")
    data = encode(picture, "TIFF", compression="jpeg", quality=95)
    expected = np.asarray(picture.convert("RGB")).astype(int)
    assert np.abs(decode_image(data, _LIMIT) - expected).mean() < 8


def test_a_jpeg_inside_that_lost_a_part_is_refused() -> None:
    """What libjpeg warns of inside a TIFF is a refusal as well."""
    [jpeg], layout = _jpegs("YCbCr 4:2:0", (32, None))
    half = jpeg[: len(jpeg) // 2]
    for damaged in (half + b"\xff\xd9", half):
        with pytest.raises(ImageError) as caught:
            decode_image(assemble((32, 48, 3), layout, [damaged]), _LIMIT)
        assert caught.value.code in (ErrorCode.CORRUPT, ErrorCode.TRUNCATED)


def test_a_jpeg_inside_of_another_size_is_corrupt() -> None:
    """A small tile can't hold a huge JPEG."""
    [jpeg], layout = _jpegs("YCbCr 4:2:0", (32, None))
    with pytest.raises(ImageError, match="32 x 48 pixels for 16 x 48") as caught:
        decode_image(assemble((16, 48, 3), layout, [jpeg]), _LIMIT)
    assert caught.value.code == ErrorCode.CORRUPT


def test_a_jpeg_inside_of_another_kind_is_corrupt() -> None:
    """It has as many components as the tags say, and the size of its strip."""
    [grey], _ = _jpegs("grey", (32, None))
    [colour], layout = _jpegs("YCbCr 4:2:0", (32, None))
    in_grey = dataclasses.replace(layout, photometric=_BLACK_IS_ZERO)
    for shape, jpeg, tags in (
        ((32, 48, 3), grey, layout),
        ((32, 48, 1), colour, in_grey),
        ((32, 64, 3), colour, layout),
        ((64, 48, 3), colour, dataclasses.replace(layout, segment=(64, None))),
    ):
        with pytest.raises(ImageError) as caught:
            decode_image(assemble(shape, tags, [jpeg]), _LIMIT)
        assert caught.value.code == ErrorCode.CORRUPT


def _lzw(*codes: int) -> bytes:
    """Pack LZW codes of nine bits, the most significant first."""
    bits = "".join(f"{code:09b}" for code in codes)
    padded = bits.ljust(-(-len(bits) // 8) * 8, "0")
    return int(padded, 2).to_bytes(len(padded) // 8, "big")


@pytest.mark.parametrize("code", [258, 259, 400, 511])
@pytest.mark.parametrize("place", [0, 1, 3])
def test_an_lzw_code_that_means_nothing_is_corrupt(code: int, place: int) -> None:
    """Behind a clear there is a byte; else the decoder reads what lies in memory, or crashes."""
    again = [256, code, 7, 7]
    codes = [256, *range(20, 20 + 5 * place), *again, 257]
    data = assemble((8, 8, 1), Layout(8, _BLACK_IS_ZERO, LZW), [_lzw(*codes)])
    with pytest.raises(ImageError, match=f"code {code} behind a clear") as caught:
        decode_image(data, _LIMIT)
    assert caught.value.code == ErrorCode.CORRUPT


def test_lzw_of_several_tables_is_read() -> None:
    """Clears in the middle, as of every few thousand codes, cost no picture, in either order."""
    samples = np.random.default_rng(3).integers(0, 256, (150, 200, 1))
    for tags in ({}, {266: [2]}):
        layout = Layout(8, _BLACK_IS_ZERO, LZW, tags=tags)
        found = decode_image(write_tiff(samples, layout), _LIMIT)
        assert found[..., :1].tolist() == samples.tolist()


@pytest.mark.parametrize("code", [256, 258, 273, 277, 284])
def test_a_tag_of_a_type_that_it_can_not_have_is_refused(code: int) -> None:
    """Bytes in place of 16 or 32 bits are other numbers for other readers."""
    samples = np.random.default_rng(3).integers(0, 256, (9, 8, 3))
    data = bytearray(write_tiff(samples, Layout(8, _RGB)))
    [directory] = struct.unpack("<I", data[4:8])
    [number] = struct.unpack("<H", data[directory : directory + 2])
    entries = range(directory + 2, directory + 2 + 12 * number, 12)
    [entry] = [one for one in entries if struct.unpack("<H", data[one : one + 2]) == (code,)]
    for wrong in (1, 6, 7):
        data[entry + 2] = wrong
        with pytest.raises(ImageError) as caught:
            decode_image(bytes(data), _LIMIT)
        assert caught.value.code in (ErrorCode.UNSUPPORTED_MODE, ErrorCode.CORRUPT)


@pytest.mark.parametrize("planar", [0, 3, 65535])
def test_a_planar_configuration_that_does_not_exist_is_refused(planar: int) -> None:
    """Nobody knows where the samples of such a file lie."""
    samples = np.random.default_rng(3).integers(0, 256, (9, 8, 3))
    with pytest.raises(ImageError, match=f"planar configuration {planar}") as caught:
        decode_image(write_tiff(samples, Layout(8, _RGB, tags={284: [planar]})), _LIMIT)
    assert caught.value.code == ErrorCode.UNSUPPORTED_MODE


@pytest.mark.parametrize("compression", ["tiff_ccitt", "group3", "group4"])
def test_faxes_are_refused(compression: str) -> None:
    """Of half a fax its decoders make a whole picture, and tell nobody."""
    bits = _samples(1, 1)[..., 0].astype(bool)
    data = encode(Image.fromarray(bits), "TIFF", compression=compression)
    with pytest.raises(ImageError, match="fax compression") as caught:
        decode_image(data, _LIMIT)
    assert caught.value.code == ErrorCode.UNSUPPORTED_MODE


def test_colours_of_which_nothing_is_said_are_refused() -> None:
    """Without a photometric interpretation readers differ about what is white."""
    data = write_tiff(_samples(8, 1), Layout(8, _BLACK_IS_ZERO))
    entry = data.index(struct.pack("<HH", 262, 3))
    # A private tag in its place, in order.
    other = data[:entry] + struct.pack("<HH", 261, 3) + data[entry + 4 :]
    with pytest.raises(ImageError, match="tag 262") as caught:
        decode_image(other, _LIMIT)
    assert caught.value.code == ErrorCode.UNSUPPORTED_MODE


@pytest.mark.parametrize("compression", [*_PREDICTED, PACKBITS])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_tile_with_the_pixels_of_the_picture_alone_is_corrupt(
    bits: int, compression: int
) -> None:
    """A tile at the edge that is cut off has, by chance, as many samples as are wanted of it."""
    layout = Layout(bits, _BLACK_IS_ZERO, compression, segment=(16, 16))
    samples = np.random.default_rng(0).integers(0, 1 << bits, (24, 24, 1))
    tiles = list(segments_of(samples, layout))
    cut = tiles[-1][: 8 * 8 * bits // 8]
    for last, is_read in ((tiles[-1], True), (cut, False)):
        data = assemble(
            samples.shape, layout, [pack(one, compression) for one in (*tiles[:-1], last)]
        )
        if is_read:
            assert decode_image(data, _LIMIT)[..., 0].tolist() == (
                (samples[..., 0] >> (bits - 8)).tolist()
            )
            continue
        with pytest.raises(ImageError, match="tile 3 holds") as caught:
            decode_image(data, _LIMIT)
        assert caught.value.code == ErrorCode.CORRUPT


_JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
_ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0"


@pytest.mark.parametrize(
    ("photometric", "marker", "is_read"),
    [
        (_RGB, b"", True), (_YCBCR, b"", True), (_YCBCR, _JFIF, True), (_RGB, _JFIF, False),
        (_RGB, _ADOBE + b"\0", True), (_YCBCR, _ADOBE + b"\0", False),
        (_YCBCR, _ADOBE + b"\1", True), (_RGB, _ADOBE + b"\1", False),
    ],
)  # fmt: skip
def test_a_jpeg_that_names_other_colours_than_its_file_is_refused(
    photometric: int, marker: bytes, *, is_read: bool
) -> None:
    """Readers of such a file see different pictures."""
    jpeg = simplejpeg.encode_jpeg(np.zeros((_HEIGHT, _WIDTH, 3), np.uint8), 90, "RGB", "444")
    bare = without_segments(jpeg)
    data = assemble(
        (_HEIGHT, _WIDTH, 3),
        Layout(8, photometric, 7, tags={530: [1, 1]} if photometric == _YCBCR else {}),
        [bare[:2] + marker + bare[2:]],
    )
    if is_read:
        decode_image(data, _LIMIT)
        return
    with pytest.raises(ImageError, match="calls its colours") as caught:
        decode_image(data, _LIMIT)
    assert caught.value.code == ErrorCode.UNSUPPORTED_MODE


def without_segments(jpeg: bytes) -> bytes:
    """Leave out the first segment of a JPEG, JFIF's."""
    length = int.from_bytes(jpeg[4:6], "big")
    assert jpeg[6:10] == b"JFIF"
    return jpeg[:2] + jpeg[4 + length :]


def test_a_page_that_is_a_copy_of_another_is_refused() -> None:
    """A first page that is marked as reduced, beside others below it, is a thumbnail."""
    layout = Layout(8, _RGB, tags={254: [1], 330: [8]})
    with pytest.raises(ImageError, match="reduced copy") as caught:
        decode_image(write_tiff(_samples(8, 3), layout), _LIMIT)
    assert caught.value.code == ErrorCode.UNSUPPORTED_MODE


def test_too_many_strips_are_too_slow() -> None:
    """A picture of a million strips is refused before one is read."""
    samples = np.zeros((140_000, 1, 1), np.int64)
    data = write_tiff(samples, Layout(8, _BLACK_IS_ZERO, segment=(1, None)))
    with pytest.raises(ImageError) as caught:
        decode_image(data, _LIMIT)
    assert caught.value.code == ErrorCode.TOO_SLOW
