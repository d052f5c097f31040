"""JPEGs: the pixels are Pillow's, and what libjpeg warns of is no picture.

The files in tests/jpegs are of kinds that Pillow can't write: cjpeg of libjpeg-turbo 2.1.5 made
them with `-quality 60` and what their names say (`-sample 4x1 -progressive -restart 1`,
`-arithmetic`), and imagecodecs 2026.3.6 made lossless.jpg with `jpeg8_encode(lossless=True)`.
"""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import PIL
import pytest
import simplejpeg
import tifffile
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngInfo

from jobs.demo.scenes import draw_scene, write_demo_images
from pipeline.errors import ErrorCode, ImageError
from pipeline.images.decode import DECODER, decode_by_pillow, decode_image
from pipeline.images.jpeg_scans import check_scans
from tests.disk_runs import encode, random_pixels

_LIMIT = 1 << 20
_FILES = Path(__file__).parents[2] / "jpegs"
_SIDES = range(1, 18)
_APP14 = 0xEE
_EOI = b"\xff\xd9"


def _picture(height: int, width: int) -> Image.Image:
    """Draw noise over a slope, so that all of a JPEG's frequencies and colours are used."""
    slope = np.linspace(0, 160, width)[None, :, None] * np.array([1, 0.5, 0.2])
    noise = random_pixels(height * 100 + width, height, width, 3) * 0.35
    return Image.fromarray((slope + noise).astype(np.uint8))


def _assert_equal(data: bytes, name: object) -> None:
    expected = decode_by_pillow(data, _LIMIT)
    found = decode_image(data, _LIMIT)
    assert found.shape == expected.shape, name
    assert (found == expected).all(), name


def _refusal(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode_image(data, _LIMIT)
    return caught.value


def _with_segment(data: bytes, marker: int, content: bytes) -> bytes:
    """Put a segment behind SOI."""
    return (
        data[:2]
        + bytes([0xFF, marker])
        + (len(content) + 2).to_bytes(2, "big")
        + content
        + data[2:]
    )


def _adobe(data: bytes, transform: int) -> bytes:
    """Put an Adobe marker (version 100) in place of JFIF's, which libjpeg believes first."""
    assert data[2:4] == b"\xff\xe0"
    bare = data[:2] + data[4 + int.from_bytes(data[4:6], "big") :]
    return _with_segment(bare, _APP14, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))


def _ways() -> Iterator[dict[str, object]]:
    for coding in ({}, {"progressive": True}, {"optimize": True}):
        for restart in ({}, {"restart_marker_blocks": 1}, {"restart_marker_rows": 1}):
            for quality in (5, 75, 95, 100):
                yield {"quality": quality, **coding, **restart}


# Equal pixels


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_colour_equals_pillow(subsampling: str) -> None:
    """Of all sizes, codings, restart intervals and qualities the pixels are Pillow's."""
    for way in _ways():
        for side in _SIDES:
            data = encode(_picture(side, 18 - side), "JPEG", subsampling=subsampling, **way)
            _assert_equal(data, (side, way))


def test_grey_equals_pillow() -> None:
    """A JPEG of one component gives Pillow's pixels."""
    for way in _ways():
        for side in _SIDES:
            data = encode(_picture(side, 18 - side).convert("L"), "JPEG", **way)
            _assert_equal(data, (side, way))


def test_rgb_in_a_jpeg_equals_pillow() -> None:
    """A JPEG that holds RGB, as its Adobe marker says, gives Pillow's pixels."""
    for way in _ways():
        for side in _SIDES:
            data = encode(_picture(side, 18 - side), "JPEG", keep_rgb=True, **way)
            _assert_equal(data, (side, way))


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "411", "440"])
@pytest.mark.parametrize("quality", [5, 75, 100])
def test_turbojpegs_subsamplings_equal_pillow(subsampling: str, quality: int) -> None:
    """So are those of the subsamplings that Pillow can't write (4:1:1 and 4:4:0), of all sizes."""
    for height in _SIDES:
        for width in (1, 2, 3, 7, 8, 9, 15, 16, 17):
            pixels = np.asarray(_picture(height, width))
            data = simplejpeg.encode_jpeg(pixels, quality, colorsubsampling=subsampling)
            _assert_equal(data, (height, width))


@pytest.mark.parametrize("transform", [0, 1])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_adobes_transform_equals_pillow(transform: int, subsampling: str) -> None:
    """What an Adobe marker says of the colours is obeyed as by Pillow, also if it's not so."""
    for way in _ways():
        for side in (1, 2, 8, 9, 16, 17):
            data = encode(_picture(side, 18 - side), "JPEG", subsampling=subsampling, **way)
            _assert_equal(_adobe(data, transform), (side, way))


def test_adobes_transform_is_of_consequence() -> None:
    """The test above decodes two pictures: transform 0 shows YCbCr as if it were RGB."""
    data = encode(_picture(9, 9), "JPEG")
    pictures = [decode_image(_adobe(data, transform), _LIMIT) for transform in (0, 1)]
    assert (pictures[0] != pictures[1]).any()


@pytest.mark.parametrize(
    "name",
    [
        *("411_progressive", "440_progressive"),
        *("411_progressive_restart", "440_progressive_restart"),
        "lossless",
    ],
)
def test_rare_codings_equal_pillow(name: str) -> None:
    """Progressive 4:1:1 and 4:4:0 and lossless JPEGs give Pillow's pixels."""
    _assert_equal((_FILES / f"{name}.jpg").read_bytes(), name)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_pictures_equal_pillow(orientation: int) -> None:
    """With an EXIF orientation the pixels are those of Pillow's own `exif_transpose`."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(_picture(7, 12), "JPEG", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(PIL.ImageOps.exif_transpose(image))
    assert decode_image(data, _LIMIT).tolist() == expected.tolist()


def test_several_pictures_in_one_file_equal_pillow() -> None:
    """Of a multi-picture file (MPO) the first is decoded, and what follows it is no damage."""
    first, second = _picture(9, 12), _picture(12, 9)
    data = encode(first, "MPO", save_all=True, append_images=[second])
    _assert_equal(data, "mpo")
    _assert_equal(encode(first, "JPEG") + b"what an editor has left here", "trailer")


def test_the_demo_equals_pillow(tmp_path: Path) -> None:
    """The demo's JPEGs, and its scenes saved as JPEG, give Pillow's pixels."""
    write_demo_images(tmp_path, 30)
    found = sorted(tmp_path.glob("scenes/*.jpg"))
    assert len(found) == 6
    for path in found:
        _assert_equal(path.read_bytes(), path.name)
    for seed in range(30):
        _assert_equal(encode(Image.fromarray(draw_scene(seed, 120, 160)[0]), "JPEG"), seed)


def test_camvid_equals_pillow(camvid: Path) -> None:
    """None of the photographs is refused, and all give Pillow's pixels."""
    photos = sorted(camvid.glob("*/images/*.jpg"))
    assert photos
    for path in photos:
        _assert_equal(path.read_bytes(), path.name)


# Who decodes


def _by_pillow(data: bytes, monkeypatch: pytest.MonkeyPatch) -> bool:
    loaded = []
    load = JpegImageFile.load
    with monkeypatch.context() as patch:
        patch.setattr(JpegImageFile, "load", lambda image: loaded.append(1) or load(image))
        decode_image(data, _LIMIT)
    return bool(loaded)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"keep_rgb": True}])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_plain_jpegs_do_without_pillows_decoder(
    mode: str, options: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Grey, YCbCr and RGB in Huffman coding are never decoded by Pillow, which holds the lock."""
    data = encode(_picture(9, 9).convert(mode), "JPEG", **options)
    assert not _by_pillow(data, monkeypatch)


@pytest.mark.parametrize("name", ["lossless", "cmyk"])
def test_other_jpegs_are_decoded_by_pillow(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inks and other codings than Huffman's are decoded by Pillow."""
    cmyk = encode(_picture(9, 9).convert("CMYK"), "JPEG")
    data = cmyk if name == "cmyk" else (_FILES / f"{name}.jpg").read_bytes()
    assert _by_pillow(data, monkeypatch)


def test_all_decoders_are_part_of_the_fingerprint() -> None:
    """The decoder's name has the versions of all that decode."""
    assert f"tifffile-{tifffile.__version__}" in DECODER
    assert f"imagecodecs-{imagecodecs.__version__}" in DECODER
    assert f"pillow-{PIL.__version__}" in DECODER
    assert f"simplejpeg-{simplejpeg.__version__}" in DECODER


# Warnings


def _scan(data: bytes) -> int:
    """Return the place at which the pixels of the first scan begin."""
    place = data.index(b"\xff\xda")
    return place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")


def _damaged() -> dict[str, bytes]:
    photo = Image.fromarray(draw_scene(3, 120, 160)[0])
    whole, progressive = encode(photo, "JPEG"), encode(photo, "JPEG", progressive=True)
    cmyk = encode(photo.convert("CMYK"), "JPEG")
    middle = len(whole) // 2
    return {
        "cut, and an end put on": whole[:middle] + _EOI,
        "a sector lost": whole[:middle] + whole[middle + 512 :],
        "sent as text": whole[: _scan(whole)] + whole[_scan(whole) :].replace(b"\n", b"\r\n"),
        "progressive, a part lost": progressive[:-400] + progressive[-200:],
        "inks, cut, and an end put on": cmyk[: len(cmyk) // 2] + _EOI,
        "bytes before a marker": whole[:-2] + b"\x12\x34\x56" + _EOI,
    }


@pytest.mark.parametrize("name", _damaged())
def test_what_libjpeg_warns_of_is_corrupt(name: str) -> None:
    """A picture of which Pillow makes something is `corrupt`, in libjpeg's words, if it warns."""
    data = _damaged()[name]
    assert decode_by_pillow(data, _LIMIT).shape == (120, 160, 3)
    refusal = _refusal(data)
    assert refusal.code == ErrorCode.CORRUPT
    assert "Corrupt JPEG data: " in refusal.message


def test_a_lossless_picture_with_a_warning_is_corrupt() -> None:
    """Codings that are left to Pillow are checked for damage all the same."""
    whole = (_FILES / "lossless.jpg").read_bytes()
    table = whole.index(b"\xff\xc4")
    data = whole[:table] + b"\x12\x34" + whole[table:]
    decode_by_pillow(data, _LIMIT)
    assert _refusal(data).message == (
        "JPEG: Corrupt JPEG data: 2 extraneous bytes before marker 0xc4"
    )


@pytest.mark.parametrize("name", ["arithmetic", "arithmetic_progressive"])
def test_arithmetic_coding_is_refused(name: str) -> None:
    """Of half of such a picture libjpeg makes a whole one, and warns nobody."""
    refusal = _refusal((_FILES / f"{name}.jpg").read_bytes())
    assert (refusal.code, "arithmetic coding" in refusal.message) == ("unsupported_mode", True)


def test_an_unknown_adobe_transform_is_corrupt() -> None:
    """Colours of which libjpeg can only guess the meaning are refused."""
    refusal = _refusal(_adobe(encode(_picture(9, 9), "JPEG"), 7))
    assert refusal.code == ErrorCode.CORRUPT
    assert refusal.message == "JPEG: Unknown Adobe color transform code 7"


@pytest.mark.parametrize("missing", [1, 2, 3, 200])
def test_a_picture_without_its_end_is_truncated(missing: int) -> None:
    """A file that lacks as little as half of its end marker is `truncated`, in both's words."""
    refusal = _refusal(encode(_picture(40, 40), "JPEG")[:-missing])
    assert refusal.code == ErrorCode.TRUNCATED
    assert "image file is truncated" in refusal.message
    assert "Premature end of JPEG file" in refusal.message


@pytest.mark.parametrize("name", ["sampling_410", "sampling_mixed"])
def test_what_cannot_be_checked_is_unsupported(name: str) -> None:
    """Sampling factors of which TurboJPEG knows no name are `unsupported_mode`, not a guess."""
    refusal = _refusal((_FILES / f"{name}.jpg").read_bytes())
    assert refusal.code == ErrorCode.UNSUPPORTED_MODE
    assert "sampling factors" in refusal.message


def test_the_limit_comes_first() -> None:
    """A damaged picture that is too large is called too large: nothing of it is decoded."""
    data = encode(_picture(17, 17), "JPEG")[:-40] + _EOI
    with pytest.raises(ImageError) as caught:
        decode_image(data, 17 * 17 - 1)
    assert caught.value.code == ErrorCode.TOO_MANY_PIXELS


def test_a_second_size_is_not_believed() -> None:
    """A file in which Pillow and libjpeg read different sizes is refused before its pixels."""
    data = encode(_picture(16, 16), "JPEG")
    # Pillow takes the size of a second frame, and of DHP (T.81, B.3.2), for that of the picture.
    frame = b"\x08\x00\x08\x00\x08\x01\x01\x11\x00"
    place = data.index(b"\xff\xda")
    for marker, code in ((0xC0, ErrorCode.CORRUPT), (0xDE, ErrorCode.UNSUPPORTED_MODE)):
        segment = bytes([0xFF, marker]) + (len(frame) + 2).to_bytes(2, "big") + frame
        assert _refusal(data[:place] + segment + data[place:]).code == code


def test_the_pixels_nobody_can_change() -> None:
    """A decoded JPEG is read-only and C-contiguous, turned or not."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for options in ({}, {"exif": exif}):
        found: NDArray[np.uint8] = decode_image(encode(_picture(9, 7), "JPEG", **options), _LIMIT)
        assert found.flags.c_contiguous
        assert not found.flags.writeable


# Kinds and costs


def _with_frame(marker: int, bits: int, num_components: int) -> bytes:
    """Write the beginning of a JPEG, up to the header of its frame (T.81, B.2.2)."""
    components = b"".join(bytes([index, 0x11, 0]) for index in range(num_components))
    frame = bytes([bits, 0, 16, 0, 16, num_components]) + components
    return b"\xff\xd8\xff" + bytes([marker]) + (len(frame) + 2).to_bytes(2, "big") + frame + _EOI


@pytest.mark.parametrize(
    ("frame", "code", "words"),
    [
        ((0xC1, 12, 3), ErrorCode.UNSUPPORTED_MODE, "JPEG of 12 bits per sample"),
        ((0xC3, 16, 1), ErrorCode.UNSUPPORTED_MODE, "JPEG of 16 bits per sample"),
        ((0xC0, 8, 2), ErrorCode.UNSUPPORTED_MODE, "JPEG of 2 components"),
        ((0xC2, 8, 5), ErrorCode.UNSUPPORTED_MODE, "JPEG of 5 components"),
        ((0xF7, 8, 3), ErrorCode.UNSUPPORTED_FORMAT, "JPEG-LS"),
        ((0xC5, 8, 3), ErrorCode.UNSUPPORTED_MODE, "hierarchical JPEG"),
        ((0xCF, 8, 1), ErrorCode.UNSUPPORTED_MODE, "hierarchical JPEG"),
    ],
)
def test_kinds_that_are_not_read_are_named(
    frame: tuple[int, int, int], code: ErrorCode, words: str
) -> None:
    """12 bits, JPEG-LS and odd numbers of components are not called damaged."""
    refusal = _refusal(_with_frame(*frame))
    assert refusal.code == code
    assert words in refusal.message


def test_a_height_behind_the_scan_is_named() -> None:
    """T.81 lets a frame leave its height to a DNL segment; no decoder here reads it."""
    data = encode(_picture(16, 24), "JPEG")
    frame = data.index(b"\xff\xc0")
    dnl = b"\xff\xdc\0\4\0\x10"
    refusal = _refusal(data[: frame + 5] + b"\0\0" + data[frame + 7 : -2] + dnl + _EOI)
    assert refusal.code == ErrorCode.UNSUPPORTED_MODE
    assert "DNL" in refusal.message


def test_the_version_of_jfif_costs_no_picture() -> None:
    """A header that calls itself JFIF 2 is read as the others are."""
    plain = encode(_picture(16, 24), "JPEG")
    version = plain.index(b"JFIF\0") + 5
    assert plain[version] == 1
    _assert_equal(plain, "as it is")
    found = decode_image(plain[:version] + b"\2" + plain[version + 1 :], _LIMIT)
    assert np.array_equal(found, decode_image(plain, _LIMIT))


# Scans that are missing


def _scans_of(data: bytes) -> tuple[bytes, list[bytes]]:
    """Cut a JPEG behind its frame and before each scan; tables go with the scan behind them."""
    frame = re.search(rb"\xff[\xc0-\xc2]", data)
    assert frame is not None
    start = frame.end() + int.from_bytes(data[frame.end() : frame.end() + 2], "big")
    scan = re.compile(rb"((?:\xff\xc4.*?)*?\xff\xda.*?)(?=\xff[\xc4\xda\xd9])", re.DOTALL)
    return data[:start], scan.findall(data[start:])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_progressive_picture_without_one_of_its_scans_is_no_picture(mode: str) -> None:
    """However many of its first scans are there, with an end behind them: libjpeg warns of none."""
    data = encode(_picture(40, 48).convert(mode), "JPEG", progressive=True, quality=90)
    head, scans = _scans_of(data)
    assert len(scans) > 5
    assert head + b"".join(scans) + _EOI == data
    decode_image(data, _LIMIT)
    for number in range(1, len(scans)):
        refusal = _refusal(head + b"".join(scans[:number]) + _EOI)
        assert refusal.code == ErrorCode.TRUNCATED, number
        assert "of its" in refusal.message


def test_a_sequential_picture_without_one_of_its_components_is_no_picture() -> None:
    """Components may come in scans of their own; without one, the others look like a picture."""
    greys = [encode(_picture(40, 48).getchannel(one), "JPEG") for one in "RGB"]
    head, [first] = _scans_of(greys[0])
    size = head.rindex(b"\xff\xc0") + 9
    head = head[:size] + b"\3" + b"".join(bytes([name, 0x11, 0]) for name in (1, 2, 3))
    head = head.replace(b"\xff\xc0\0\x0b", b"\xff\xc0\0\x11")
    component = first.index(b"\xff\xda") + 5
    scans = [
        one[:component] + bytes([name]) + one[component + 1 :]
        for name, one in enumerate((_scans_of(grey)[1][0] for grey in greys), start=1)
    ]
    _assert_equal(head + b"".join(scans) + _EOI, "whole")
    for some in (scans[:1], scans[:2], scans[1:]):
        refusal = _refusal(head + b"".join(some) + _EOI)
        assert (refusal.code, "components are missing" in refusal.message) == ("truncated", True)


def _with_scans(data: bytes, number: int) -> bytes:
    """Repeat the last scan of a progressive JPEG: whoever decodes it walks over it every time."""
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * number + _EOI


def test_a_jpeg_of_many_scans_is_too_slow() -> None:
    """A file that costs time by its scans is refused before any is decoded; a dozen are usual."""
    data = encode(_picture(40, 40), "JPEG", progressive=True)
    assert 5 < data.count(b"\xff\xda") < 15
    refusal = _refusal(_with_scans(data, 500))
    assert refusal.code == ErrorCode.TOO_SLOW
    assert (
        "more than 100 scans, each of which costs time for the whole picture: the limit for 1600"
        in refusal.message
    )


def test_what_is_no_scan_of_the_picture_does_not_count() -> None:
    """A thumbnail's scans, and what a phone appends as a video, cost the picture nothing."""
    data = encode(_picture(40, 40), "JPEG", progressive=True)
    starts = b"\xff\xda" * 500
    thumbnail = b"\xff\xe1" + (len(starts) + 2).to_bytes(2, "big") + starts
    check_scans(data[:2] + thumbnail + data[2:], 1600)
    check_scans(data + starts, 1600)
    check_scans(_with_scans(data, 50), 1600)
    with pytest.raises(ImageError, match="more than 100 scans"):
        check_scans(_with_scans(data, 101) + starts, 1600)


def test_a_large_jpeg_may_have_fewer_scans() -> None:
    """What a scan costs grows with the picture: beyond 4 megapixels fewer are read, 20 always."""
    data = _with_scans(encode(_picture(16, 16), "JPEG", progressive=True), 30)
    check_scans(data, 10 << 20)
    with pytest.raises(ImageError, match="more than 20 scans"):
        check_scans(data, 50 << 20)
    check_scans(encode(_picture(16, 16), "JPEG", progressive=True), 1 << 40)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(
    "ink", [(0, 255, 255, 0), (255, 0, 0, 0), (0, 0, 0, 255), (9, 99, 199, 29)]
)
def test_inks_of_known_colours(ink: tuple[int, int, int, int], *, progressive: bool) -> None:
    """CMYK, with and without progression, gives the colours of the inks."""
    picture = Image.new("CMYK", (16, 16), ink)
    expected = np.array(picture.convert("RGB"))[0, 0].astype(int)
    plain = encode(picture, "JPEG", quality=100, subsampling=0, progressive=progressive)
    assert np.abs(decode_image(plain, _LIMIT).astype(int) - expected).max() <= 3


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_is_exifs_alone(name: str) -> None:
    """What XMP says of the orientation is not read, in no format; EXIF's is."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    options = {
        "JPEG": {"xmp": xmp, "quality": 95},
        "PNG": {"pnginfo": _text("XML:com.adobe.xmp", xmp.decode())},
        "WEBP": {"xmp": xmp, "lossless": True},
        "TIFF": {"tiffinfo": {700: xmp}},
    }[name]
    data = encode(_picture(8, 12), name, **options)
    assert b"Orientation" in data
    assert decode_image(data, _LIMIT).shape == (8, 12, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encode(_picture(8, 12), name, exif=exif), _LIMIT).shape == (12, 8, 3)


def _text(key: str, text: str) -> PngInfo:
    info = PngInfo()
    info.add_itxt(key, text)
    return info


def test_a_sequential_jpeg_of_many_scans_is_refused() -> None:
    """One that repeats its only scan is no way around the limit: libjpeg ends at the second."""
    refusal = _refusal(_with_scans(encode(_picture(16, 16), "JPEG"), 300))
    assert refusal.code in (ErrorCode.CORRUPT, ErrorCode.TOO_SLOW)


def _segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


@pytest.mark.parametrize(
    "segment",
    [
        _segment(0xE0, b"JFIF\0"),
        _segment(0xE0, b"JFIF\0\x99"),
        _segment(0xEE, b"Adobe"),
        _segment(0xEE, b"Adobe\0"),
        _segment(0xE2, b"ICC_PROFILE\0"),
        _segment(0xE2, b"ICC_PROFILE\0\5\2xx"),
        _segment(0xE2, b"MPF\0"),
        _segment(0xED, b"Photoshop 3.0\0008BIM\x03\xed\xff\x00\x00\x00\x00\x10ab"),
        _segment(0xFE, b""),
        _segment(0xFE, b"\xff\xd8\xff"),
    ],
)
@pytest.mark.parametrize("kind", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
def test_damaged_metadata_costs_no_picture(segment: bytes, kind: dict[str, object]) -> None:
    """Profiles, comments and headers that are cut off change no pixel of a JPEG that is whole."""
    plain = encode(Image.fromarray(draw_scene(3, 48, 64)[0]), "JPEG", quality=90, **kind)
    first = 4 + int.from_bytes(plain[4:6], "big")
    expected = decode_image(plain, _LIMIT)
    for place in (2, first):
        data = plain[:place] + segment + plain[place:]
        assert np.array_equal(decode_image(data, _LIMIT), expected)
