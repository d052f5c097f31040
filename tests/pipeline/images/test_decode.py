"""Decoding: every rule of `pipeline.images.decode`, shown on pixels, and every kind of bad file."""

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from jobs.demo.scenes import huge_png
from pipeline.errors import ErrorCode, ImageError
from pipeline.images.decode import check_num_pixels, decode_by_pillow, decode_image, read_size
from pipeline.images.formats import FORMATS, sniff
from tests.disk_runs import encode, random_pixels

# Pillow warns of what it then raises, of damaged EXIF and of what follows the first picture.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

_LIMIT = 1 << 20
_ROOT = Path(__file__).parent.parent.parent.parent

_NOISE = random_pixels(0, 16, 24, 3)
# Noise enlarged: smooth enough for JPEG to keep, and without any symmetry.
_SMOOTH = np.asarray(Image.fromarray(random_pixels(1, 4, 6, 3)).resize((48, 32)))

_LOSSLESS: dict[str, Callable[[Image.Image], bytes]] = {
    "png": lambda picture: encode(picture, "PNG"),
    "webp": lambda picture: encode(picture, "WEBP", lossless=True),
    "tiff": lambda picture: encode(picture, "TIFF"),
    "tiff lzw": lambda picture: encode(picture, "TIFF", compression="tiff_lzw"),
    "tiff deflate": lambda picture: encode(picture, "TIFF", compression="tiff_adobe_deflate"),
    "tiff packbits": lambda picture: encode(picture, "TIFF", compression="packbits"),
    "bigtiff": lambda picture: encode(picture, "TIFF", big_tiff=True),
    "bmp": lambda picture: encode(picture, "BMP"),
}
_LOSSY: dict[str, Callable[[Image.Image], bytes]] = {
    "jpeg": lambda picture: encode(picture, "JPEG", quality=95),
    "jpeg progressive": lambda picture: encode(picture, "JPEG", quality=95, progressive=True),
    "webp lossy": lambda picture: encode(picture, "WEBP", quality=95),
    "tiff jpeg": lambda picture: encode(picture, "TIFF", compression="jpeg", quality=95),
}
_ALL = {**_LOSSLESS, **_LOSSY}


def _decode(data: bytes) -> NDArray[np.uint8]:
    return decode_image(data, _LIMIT)


def _pixels(data: bytes) -> list[list[int]]:
    """Decode a picture that is one row high."""
    decoded = _decode(data)
    assert decoded.shape[0] == 1
    return decoded[0].tolist()


def _code(data: bytes, max_pixels: int = _LIMIT) -> ErrorCode:
    with pytest.raises(ImageError) as caught:
        decode_image(data, max_pixels)
    assert caught.value.message
    return caught.value.code


def _grey(*values: int) -> list[list[int]]:
    return [[value] * 3 for value in values]


def _difference(decoded: NDArray[np.uint8], expected: NDArray[np.uint8]) -> float:
    """Return the mean absolute difference, in grey values."""
    return float(np.abs(decoded.astype(int) - expected.astype(int)).mean())


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + kind + content + checksum


def _png(width: int, depth: int, colour_type: int, row: bytes, *chunks: bytes) -> bytes:
    """Write a PNG of one row by hand (PNG specification, 11.2), for what Pillow can't save."""
    header = struct.pack(">IIBBBBB", width, 1, depth, colour_type, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            *chunks,
            _chunk(b"IDAT", zlib.compress(b"\0" + row)),
            _chunk(b"IEND", b""),
        )
    )


# Formats


@pytest.mark.parametrize("name", _LOSSLESS)
def test_lossless_formats_keep_every_pixel(name: str) -> None:
    """PNG, lossless WebP, TIFF in its compressions and BMP give back the pixels they were given."""
    assert _decode(_LOSSLESS[name](Image.fromarray(_NOISE))).tolist() == _NOISE.tolist()


@pytest.mark.parametrize("name", _LOSSY)
def test_lossy_formats_keep_the_picture(name: str) -> None:
    """JPEG, lossy WebP and JPEG in TIFF give a picture close to the one they were given."""
    decoded = _decode(_LOSSY[name](Image.fromarray(_SMOOTH)))
    assert decoded.shape == _SMOOTH.shape
    assert _difference(decoded, _SMOOTH) < 4
    assert _difference(decoded[::-1], _SMOOTH) > 20


@pytest.mark.parametrize("name", _ALL)
def test_the_result_is_an_rgb_array_nobody_can_change(name: str) -> None:
    """Every format gives read-only, C-contiguous uint8 of shape (H, W, 3)."""
    decoded = _decode(_ALL[name](Image.fromarray(_NOISE)))
    assert (decoded.shape, decoded.dtype) == ((16, 24, 3), np.uint8)
    assert decoded.flags.c_contiguous
    assert not decoded.flags.writeable


@pytest.mark.parametrize("size", [(1, 1), (5000, 30), (30, 5000), (1, 4096)])
@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "tiff", "bmp"])
def test_any_size_is_decoded(name: str, size: tuple[int, int]) -> None:
    """A single pixel and very long or wide pictures come back at their size, in their colour."""
    height, width = size
    decoded = _decode(_ALL[name](Image.new("RGB", (width, height), (200, 200, 200))))
    assert decoded.shape == (height, width, 3)
    assert (decoded == 200).all()


@pytest.mark.skipif("AVIF" not in FORMATS, reason="this Pillow reads no AVIF")
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_avif_is_read(mode: str) -> None:
    """AVIF gives its picture, over white and upright, and is `truncated` without its end."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(_SMOOTH).convert(mode)
    data = encode(picture, "AVIF", quality=100, subsampling="4:4:4", exif=exif)
    decoded = _decode(data)
    assert decoded.shape == (48, 32, 3)
    assert _difference(decoded, np.ascontiguousarray(_STORED[8](_SMOOTH))) < 4
    assert _code(data[:-20]) == ErrorCode.TRUNCATED
    clear = encode(Image.new("RGBA", (8, 8)), "AVIF")
    assert (_decode(clear) > 250).all()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "CR3"),
        (b"GIF89a", "GIF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x0a", "JPEG XL"),
        (b"8BPS\0\1", "PSD"),
    ],
)
def test_a_format_that_is_not_read_is_named(data: bytes, name: str) -> None:
    """Who reads the row of an image in another format learns which one it is."""
    with pytest.raises(ImageError, match=f"is {name}") as caught:
        _decode(data)
    assert caught.value.code == ErrorCode.UNSUPPORTED_FORMAT


# Modes


def test_grey_becomes_three_equal_channels() -> None:
    """A grey value is the value of red, green and blue."""
    grey = Image.fromarray(np.array([[0, 7, 128, 255]], np.uint8))
    assert [_pixels(encode(grey, name)) for name in ("PNG", "TIFF", "BMP")] == [
        _grey(0, 7, 128, 255)
    ] * 3


def test_grey_jpeg_becomes_three_equal_channels() -> None:
    """A JPEG with one component gives R = G = B."""
    decoded = _decode(encode(Image.new("L", (8, 8), 77), "JPEG"))
    assert decoded.tolist() == [[[77, 77, 77]] * 8] * 8


def test_one_bit_becomes_black_and_white() -> None:
    """A picture of single bits gives 0 and 255."""
    bits = Image.fromarray(np.array([[True, False, False, True]]))
    assert bits.mode == "1"
    assert [_pixels(encode(bits, name)) for name in ("PNG", "BMP")] == [_grey(255, 0, 0, 255)] * 2
    assert _pixels(encode(bits, "TIFF")) == _grey(255, 0, 0, 255)


def test_few_bits_are_spread_over_the_range() -> None:
    """Grey of 2 bits gives 0, 85, 170 and 255."""
    assert _pixels(_png(4, 2, 0, bytes([0b00_01_10_11]))) == _grey(0, 85, 170, 255)


def test_grey_alpha_is_laid_over_white() -> None:
    """Of grey with alpha, a transparent pixel is white and an opaque one keeps its value."""
    pixels = np.array([[[0, 0], [0, 255], [100, 255], [0, 128]]], np.uint8)
    assert _pixels(encode(Image.fromarray(pixels, "LA"), "PNG")) == _grey(255, 0, 100, 127)


@pytest.mark.parametrize("name", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_laid_over_white(name: str) -> None:
    """Colour with alpha is mixed with white in proportion."""
    pixels = np.array([[[0, 9, 99, 255], [10, 20, 30, 0], [255, 0, 0, 128]]], np.uint8)
    options = {"lossless": True, "exact": True} if name == "WEBP" else {}
    expected = [[0, 9, 99], [255, 255, 255], [255, 127, 127]]
    assert _pixels(encode(Image.fromarray(pixels), name, **options)) == expected


def _palette_picture() -> Image.Image:
    picture = Image.fromarray(np.array([[2, 0, 1]], np.uint8))
    picture.putpalette([1, 2, 3, 40, 50, 60, 250, 0, 7])
    return picture


@pytest.mark.parametrize("name", ["PNG", "TIFF", "BMP"])
def test_palettes_are_looked_up(name: str) -> None:
    """A palette picture gives the colours of its palette."""
    assert _pixels(encode(_palette_picture(), name)) == [[250, 0, 7], [1, 2, 3], [40, 50, 60]]


def test_transparent_palette_entries_are_laid_over_white() -> None:
    """A palette's alpha values mix its colours with white."""
    data = encode(_palette_picture(), "PNG", transparency=bytes([0, 128, 255]))
    assert _pixels(data) == [[250, 0, 7], [255, 255, 255], [147, 152, 157]]


def test_a_transparent_colour_becomes_white() -> None:
    """The one colour that an RGB or grey PNG names as transparent is white, all others stay."""
    rgb = Image.fromarray(np.array([[[1, 2, 3], [1, 2, 4]]], np.uint8))
    grey = Image.fromarray(np.array([[5, 6]], np.uint8))
    bits = Image.fromarray(np.array([[True, False]]))
    assert _pixels(encode(rgb, "PNG", transparency=(1, 2, 3))) == [[255, 255, 255], [1, 2, 4]]
    assert _pixels(encode(grey, "PNG", transparency=5)) == _grey(255, 6)
    assert _pixels(encode(bits, "PNG", transparency=0)) == _grey(255, 255)


_SIXTEEN_BITS = np.array([[0x0000, 0x00FF, 0x1234, 0x80FF, 0xFFFF]], np.uint16)
_HIGH_BYTES = _grey(0x00, 0x00, 0x12, 0x80, 0xFF)


@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_sixteen_bit_grey_gives_its_high_byte(name: str) -> None:
    """Grey of 16 bits becomes its high byte."""
    assert _pixels(encode(Image.fromarray(_SIXTEEN_BITS), name)) == _HIGH_BYTES


def test_big_endian_sixteen_bit_tiff_gives_its_high_byte() -> None:
    """A 16-bit TIFF in the other byte order gives the same pixels."""
    samples = _SIXTEEN_BITS.astype(">u2").tobytes()
    data = encode(Image.frombytes("I;16B", (5, 1), samples), "TIFF")
    assert data[:2] == b"MM"
    assert _pixels(data) == _HIGH_BYTES


def test_a_transparent_sixteen_bit_value_becomes_white() -> None:
    """Of 16-bit grey exactly the transparent value is white, not others of the same high byte."""
    samples = np.array([[0x1234, 0x1235]], np.uint16)
    data = encode(Image.fromarray(samples), "PNG", transparency=0x1234)
    assert _pixels(data) == _grey(255, 0x12)


def test_sixteen_bit_colour_gives_its_high_byte() -> None:
    """Colour and grey-alpha of 16 bits per channel become their high bytes."""
    colour = struct.pack(">3H", 0x12FF, 0x5600, 0xFE80)
    grey_alpha = struct.pack(">4H", 0x12FF, 0xFFFF, 0x3456, 0x0000)
    assert _pixels(_png(1, 16, 2, colour)) == [[0x12, 0x56, 0xFE]]
    assert _pixels(_png(2, 16, 4, grey_alpha)) == _grey(0x12, 255)


@pytest.mark.parametrize(
    ("cmyk", "rgb"),
    [
        ((0, 255, 255, 0), (255, 0, 0)),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 0, 0, 255), (0, 0, 0)),
        ((0, 0, 0, 0), (255, 255, 255)),
    ],
)
@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(
    name: str, cmyk: tuple[int, int, int, int], rgb: tuple[int, int, int]
) -> None:
    """The inks of a CMYK picture are not inverted: no ink is white, all black ink is black."""
    decoded = _decode(encode(Image.new("CMYK", (16, 16), cmyk), name))
    assert np.abs(decoded.astype(int) - rgb).max() <= 2


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_ycbcr_becomes_rgb(name: str) -> None:
    """A picture stored as YCbCr gives the RGB that it was made of."""
    picture = Image.new("RGB", (16, 16), (200, 30, 60)).convert("YCbCr")
    assert np.abs(_decode(encode(picture, name)).astype(int) - (200, 30, 60)).max() <= 2


@pytest.mark.parametrize(
    ("lab", "rgb"),
    [
        ((255, 128, 128), (255, 255, 255)),
        ((0, 128, 128), (0, 0, 0)),
        # sRGB red is L* 54.29, a* 80.81, b* 69.89 (D50).
        ((138, 209, 198), (255, 0, 0)),
    ],
)
def test_lab_becomes_rgb(lab: tuple[int, int, int], rgb: tuple[int, int, int]) -> None:
    """A TIFF in CIE L*a*b* gives the sRGB colour."""
    decoded = _decode(encode(Image.new("LAB", (4, 4), lab), "TIFF"))
    assert np.abs(decoded.astype(int) - rgb).max() <= 5


# Frames


@pytest.mark.parametrize(
    ("name", "options"),
    [("WEBP", {"lossless": True, "duration": 50}), ("TIFF", {}), ("PNG", {"duration": 50})],
)
def test_the_first_frame_is_taken(name: str, options: dict[str, object]) -> None:
    """Of an animation or of several pages the first one is decoded."""
    first, second = (Image.fromarray(random_pixels(seed, 16, 24, 3)) for seed in (1, 2))
    data = encode(first, name, save_all=True, append_images=[second], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 2
    assert _decode(data).tolist() == np.asarray(first).tolist()


# Orientation

# Exif 2.32, tag 274: how an upright picture is stored under each value.
_STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright.swapaxes(0, 1)[::-1],
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: upright.swapaxes(0, 1)[:, ::-1],
}


def _stored(upright: NDArray[np.uint8], orientation: int, name: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.ascontiguousarray(_STORED[orientation](upright))
    options = {
        "jpeg": {"format_name": "JPEG", "quality": 95, "subsampling": 0},
        "png": {"format_name": "PNG"},
        "webp": {"format_name": "WEBP", "lossless": True},
        "tiff": {"format_name": "TIFF"},
        "tiff lzw": {"format_name": "TIFF", "compression": "tiff_lzw"},
    }[name]
    return encode(Image.fromarray(pixels), exif=exif, **options)


@pytest.mark.parametrize("orientation", _STORED)
@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "tiff", "tiff lzw"])
def test_every_orientation_gives_the_same_upright_picture(name: str, orientation: int) -> None:
    """However a picture is stored, it is decoded as people see it, turned once."""
    decoded = _decode(_stored(_SMOOTH, orientation, name))
    assert decoded.shape == (32, 48, 3)
    assert _difference(decoded, _SMOOTH) < (3 if name == "jpeg" else 1e-9)
    assert decoded.flags.c_contiguous


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_without_meaning_is_ignored(orientation: int) -> None:
    """Orientations outside of 1 to 8 leave the picture as it is stored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(_NOISE), "PNG", exif=exif)
    assert _decode(data).tolist() == _NOISE.tolist()


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"II*\0\x08\0\0\0\xff\xff", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0"],
)
def test_damaged_exif_does_not_cost_the_picture(content: bytes) -> None:
    """A JPEG whose EXIF can't be read is decoded as it is stored."""
    plain = encode(Image.fromarray(_SMOOTH), "JPEG")
    exif = b"Exif\0\0" + content
    data = plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:]
    assert _decode(data).tolist() == _decode(plain).tolist()


# Bad files


def test_an_empty_file_is_truncated() -> None:
    """No bytes at all are the shortest way of being cut off."""
    assert _code(b"") == ErrorCode.TRUNCATED


@pytest.mark.parametrize("name", _ALL)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.8])
def test_a_file_that_is_cut_off_is_truncated(name: str, part: float) -> None:
    """Of every format, a file without its end is `truncated`: no half picture is labelled."""
    whole = _ALL[name](Image.fromarray(random_pixels(2, 64, 64, 3)))
    assert _code(whole[: int(len(whole) * part)]) == ErrorCode.TRUNCATED


@pytest.mark.parametrize(
    "data",
    [
        b"<!doctype html><title>404 Not Found</title>",
        encode(Image.new("P", (8, 8)), "GIF"),
        encode(Image.new("RGB", (8, 8)), "PPM"),
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"\0",
    ],
    ids=["html", "gif", "ppm", "heic", "wav", "a zero"],
)
def test_other_formats_are_unsupported(data: bytes) -> None:
    """What is none of the five formats by its content is `unsupported_format`."""
    assert _code(data) == ErrorCode.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("mode", ["F", "I"])
def test_samples_without_a_range_are_unsupported(mode: str) -> None:
    """Floating point and 32-bit integers are `unsupported_mode`."""
    assert _code(encode(Image.new(mode, (4, 4)), "TIFF")) == ErrorCode.UNSUPPORTED_MODE


def test_an_unknown_pixel_layout_is_unsupported() -> None:
    """A TIFF of a pixel layout that Pillow does not know is `unsupported_mode`."""
    data = encode(Image.new("RGB", (4, 4)), "TIFF")
    # BitsPerSample is tag 258; 3 of 8 bits become 3 of 7.
    assert data.count(struct.pack("<3H", 8, 8, 8)) == 1
    odd = data.replace(struct.pack("<3H", 8, 8, 8), struct.pack("<3H", 7, 7, 7))
    assert _code(odd) == ErrorCode.UNSUPPORTED_MODE


@pytest.mark.parametrize("name", ["png", "tiff deflate"])
def test_damage_in_the_middle_is_corrupt(name: str) -> None:
    """Where a format can tell, changed bytes in the middle are `corrupt`."""
    data = bytearray(_ALL[name](Image.fromarray(_NOISE)))
    middle = len(data) // 2
    data[middle : middle + 20] = b"\xa5" * 20
    assert _code(bytes(data)) == ErrorCode.CORRUPT


def test_a_damaged_jpeg_table_is_corrupt() -> None:
    """A JPEG whose Huffman tables make no sense is `corrupt`."""
    data = encode(Image.fromarray(_NOISE), "JPEG")
    table = data.index(b"\xff\xc4") + 5
    assert _code(data[:table] + b"\xff" * 16 + data[table + 16 :]) == ErrorCode.CORRUPT


def test_a_damaged_webp_is_corrupt() -> None:
    """A WebP of full length whose frame header is broken is `corrupt`."""
    data = encode(Image.fromarray(_NOISE), "WEBP")
    assert _code(data[:20] + b"\xff" * 10 + data[30:]) == ErrorCode.CORRUPT


def test_a_palette_png_without_palette_is_corrupt() -> None:
    """A palette PNG that lacks its palette is a bad file, not a bug."""
    assert _code(_png(2, 8, 3, b"\0\1")) == ErrorCode.CORRUPT


def test_the_message_says_what_is_wrong() -> None:
    """A message names the format, the size of the file and what the decoder said."""
    data = encode(Image.fromarray(_NOISE), "PNG")[:500]
    with pytest.raises(ImageError, match=r"^PNG of 500 bytes ends early: .+"):
        _decode(data)


# Limits


def test_the_limit_is_inclusive() -> None:
    """A picture of exactly the limit is decoded, of one pixel more it is `too_many_pixels`."""
    data = encode(Image.fromarray(_NOISE), "PNG")
    assert decode_image(data, 16 * 24).shape == (16, 24, 3)
    assert _code(data, 16 * 24 - 1) == ErrorCode.TOO_MANY_PIXELS


def test_the_message_names_size_limit_and_setting() -> None:
    """Who reads the message knows what to change."""
    with pytest.raises(ImageError, match=r"30 x 40 = 1200 pixels, the limit is 1199 .max_image_pi"):
        check_num_pixels(30, 40, 1199)


@pytest.mark.parametrize("name", _ALL)
def test_the_limit_comes_before_decoding(name: str) -> None:
    """A picture that is both too large and damaged is called too large: its pixels are not read."""
    data = bytearray(_ALL[name](Image.fromarray(_NOISE)))
    middle = len(data) // 2
    data[middle : middle + 40] = bytes(40)
    assert _code(bytes(data), 16 * 24 - 1) == ErrorCode.TOO_MANY_PIXELS


_UNDER_A_LIMIT = """
import resource
from jobs.demo.scenes import huge_png
from pipeline.images.decode import decode_image
from pipeline.errors import ImageError

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)
for max_pixels in (50_000_000, 900_000_000):
    try:
        decode_image(huge_png(30_000, 30_000), max_pixels)
    except ImageError as error:
        print(error.code)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc are Linux's")
def test_a_bomb_costs_no_memory() -> None:
    """A small file that promises 900 million pixels is refused within 256 MiB.

    The second answer shows that decoding it would not fit: it is refused for lack of memory.
    """
    assert len(huge_png(30_000, 30_000)) < 4096
    process = subprocess.run(
        [sys.executable, "-c", _UNDER_A_LIMIT],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout.split() == ["too_many_pixels", "out_of_memory"]


# Sizes


@pytest.mark.parametrize("name", _ALL)
def test_the_size_in_the_header_is_that_of_the_pixels(name: str) -> None:
    """Without orientation, `read_size` says the size that `decode_image` gives."""
    data = _ALL[name](Image.fromarray(_SMOOTH))
    assert read_size(data) == _decode(data).shape[:2] == (32, 48)


def test_the_size_is_as_stored() -> None:
    """`read_size` of a turned JPEG is the size before turning, of the same number of pixels."""
    data = _stored(_SMOOTH, 6, "jpeg")
    assert read_size(data) == (48, 32)


def test_the_size_of_a_bomb_is_read() -> None:
    """The size of a huge picture is known without decoding it."""
    assert read_size(huge_png(30_000, 20_000)) == (30_000, 20_000)


def test_the_size_of_no_picture_is_an_image_error() -> None:
    """What `decode_image` refuses by its header, `read_size` refuses with the same code."""
    for data, code in ((b"", ErrorCode.TRUNCATED), (b"GIF89a", ErrorCode.UNSUPPORTED_FORMAT)):
        with pytest.raises(ImageError) as caught:
            read_size(data)
        assert caught.value.code == code


# Fuzzing


def _valid_files() -> list[bytes]:
    picture = Image.fromarray(_NOISE)
    grey = picture.convert("L")
    palette = picture.quantize(8)
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        *(save(picture) for save in _ALL.values()),
        encode(grey, "JPEG"),
        encode(picture.convert("CMYK"), "JPEG"),
        encode(picture, "JPEG", exif=exif),
        encode(picture, "MPO", save_all=True, append_images=[picture.rotate(180)]),
        encode(palette, "PNG", transparency=1),
        encode(picture.convert("1"), "PNG"),
        encode(Image.fromarray(_SIXTEEN_BITS), "PNG"),
        encode(picture.convert("LA"), "PNG"),
        encode(picture.convert("RGBA"), "PNG", exif=exif),
        encode(picture, "PNG", save_all=True, append_images=[picture.rotate(180)]),
        encode(picture.convert("RGBA"), "WEBP", lossless=True, exif=exif),
        encode(picture, "WEBP", save_all=True, append_images=[picture.rotate(180)]),
        encode(palette, "TIFF"),
        encode(picture.convert("F"), "TIFF"),
        encode(Image.new("LAB", (9, 9)), "TIFF"),
        encode(picture.convert("1"), "TIFF"),
        encode(picture, "TIFF", exif=exif, save_all=True, append_images=[grey]),
        encode(palette, "BMP"),
        encode(picture.convert("RGBA"), "BMP"),
    ]


_VALID = _valid_files()


def _repair_checksums(data: bytes) -> bytes:
    """Recompute the CRCs of a PNG, so that changes get past them."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    repaired, position = data[:8], 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        content = data[position + 8 : position + 8 + length]
        repaired += _chunk(data[position + 4 : position + 8], content)
        position += 12 + length
    return repaired


def _by_pillow_too(data: bytes) -> bool:
    return sniff(data) not in ("TIFF", "PNG")


@st.composite
def _damaged(draw: st.DrawFn, files: Sequence[bytes] = _VALID) -> bytes:
    data = draw(st.sampled_from(files))
    for _ in range(draw(st.integers(1, 4))):
        # Headers and trailers are where formats differ.
        place = draw(st.integers(0, min(300, len(data))) | st.integers(0, len(data)))
        place = draw(st.sampled_from((place, len(data) - place)))
        removed = draw(st.sampled_from((0, 1, 2, 4, 12, len(data))))
        other = draw(st.sampled_from(_VALID))
        start = draw(st.integers(0, 60))
        put = draw(
            st.binary(max_size=4)
            | st.sampled_from(
                (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\x7f\xff\xff\xff")
            )
            | st.just(other[start : start + 12])
        )
        data = data[:place] + put + data[place + removed :]
    return _repair_checksums(data) if draw(st.booleans()) else data


def _outcome(data: bytes) -> object:
    try:
        decoded = decode_image(data, _LIMIT)
    except ImageError as error:
        return error.code
    assert decoded.size == decoded.shape[0] * decoded.shape[1] * 3 > 0
    return ("picture", decoded.dtype.type, decoded.ndim)


def _pixels_or_code(
    decode: Callable[[bytes, int], NDArray[np.uint8]], data: bytes
) -> list[object] | ErrorCode:
    try:
        return decode(data, _LIMIT).tolist()
    except ImageError as error:
        return error.code


_MANY_FILES = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


@_MANY_FILES
@given(_damaged())
def test_no_bytes_bring_the_decoder_down(data: bytes) -> None:
    """Of any damaged file the decoder makes a picture or an ImageError, and nothing else."""
    assert _outcome(data) in {
        ("picture", np.uint8, 3),
        ErrorCode.TRUNCATED,
        ErrorCode.CORRUPT,
        ErrorCode.UNSUPPORTED_FORMAT,
        ErrorCode.UNSUPPORTED_MODE,
        ErrorCode.TOO_MANY_PIXELS,
        ErrorCode.OUT_OF_MEMORY,
        ErrorCode.TOO_SLOW,
    }


@_MANY_FILES
@given(_damaged([data for data in _VALID if _by_pillow_too(data)]).filter(_by_pillow_too))
def test_no_damage_shows_other_pixels_than_pillow(data: bytes) -> None:
    """What is decoded is what Pillow decodes; what Pillow refuses is refused with its code.

    TIFFs are read by tifffile, and of PNGs Pillow is given the chunks that decide the pixels.
    """
    found, expected = (_pixels_or_code(decode, data) for decode in (decode_image, decode_by_pillow))
    refused_for_a_warning = isinstance(expected, list) and isinstance(found, ErrorCode)
    assert refused_for_a_warning or found == expected


def _webp_of_canvas(side: int) -> bytes:
    """Write an animation of one small frame on a canvas of that side."""
    frame = encode(Image.new("RGB", (8, 8)), "WEBP", lossless=True)[12:]

    def three(value: int) -> bytes:
        return value.to_bytes(3, "little")

    def part(kind: bytes, content: bytes) -> bytes:
        return kind + struct.pack("<I", len(content)) + content

    canvas = part(b"VP8X", b"\x02\0\0\0" + three(side - 1) * 2)
    place = three(0) * 2 + three(7) * 2 + three(100) + b"\0"
    body = b"WEBP" + canvas + part(b"ANIM", bytes(6)) + part(b"ANMF", place + frame)
    return part(b"RIFF", body)


_IN_LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from pipeline.images.decode import decode_image
from pipeline.errors import ImageError
data = Path(sys.argv[1]).read_bytes()
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (30 << 20),) * 2)
try:
    print(decode_image(data, 1 << 30).shape)
except ImageError as error:
    print(error.code)
"""


def test_want_of_memory_is_no_damage_in_any_format(tmp_path: Path) -> None:
    """Codecs that call it a broken picture are not believed: the next run may have the memory."""
    picture = Image.fromarray(np.kron(random_pixels(1, 60, 70, 3), np.ones((60, 60, 1), np.uint8)))
    files = {
        "a.webp": encode(picture, "WEBP", quality=50),
        "a.avif": encode(picture, "AVIF", quality=40, speed=10),
        "progressive.jpg": encode(picture, "JPEG", progressive=True),
        "canvas.webp": _webp_of_canvas(16383),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        command = [sys.executable, "-c", _IN_LITTLE_MEMORY, str(tmp_path / name)]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        assert process.stdout.split() == ["out_of_memory"], (name, process)


def test_a_webp_of_a_huge_canvas_is_too_large_before_it_is_opened() -> None:
    """Its limit is that of the canvas, which Pillow would make room for to read its size."""
    assert read_size(_webp_of_canvas(16383)) == (16383, 16383)
    with pytest.raises(ImageError) as found:
        decode_image(_webp_of_canvas(16383), 50_000_000)
    assert found.value.code == ErrorCode.TOO_MANY_PIXELS


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0MM\0*"}])
@pytest.mark.parametrize("size", [(1, 1), (3, 200), (129, 1)])
def test_the_size_of_a_webp_is_that_of_its_pixels(
    options: dict[str, object], size: tuple[int, int]
) -> None:
    """The header of every kind says what is decoded."""
    data = encode(Image.fromarray(random_pixels(1, *size, 3)), "WEBP", **options)
    assert read_size(data) == size == decode_image(data, 1 << 20).shape[:2]


def _box(name: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + name + content


def test_an_avif_that_is_to_be_cropped_is_refused() -> None:
    """Its property says so, in which all other readers than Pillow's believe."""
    data = encode(Image.fromarray(random_pixels(0, 24, 32, 3)), "AVIF")
    place = data.index(b"ipco") - 4
    number = int.from_bytes(data[place : place + 4], "big")
    crop = _box(b"clap", b"".join(n.to_bytes(4, "big") for n in (16, 1, 12, 1, 0, 1, 0, 1)))
    grown = (number + len(crop)).to_bytes(4, "big") + data[place + 4 : place + number] + crop
    cropped = data[:place] + grown + data[place + number :]
    for outer in (b"iprp", b"meta"):
        at = cropped.index(outer) - 4
        longer = int.from_bytes(cropped[at : at + 4], "big") + len(crop)
        cropped = cropped[:at] + longer.to_bytes(4, "big") + cropped[at + 4 :]
    with pytest.raises(ImageError, match="to be cropped") as caught:
        decode_image(cropped, _LIMIT)
    assert caught.value.code == ErrorCode.UNSUPPORTED_MODE
    # The word alone is none: it has to be a property.
    assert decode_image(data + _box(b"free", crop), _LIMIT).shape == (24, 32, 3)
