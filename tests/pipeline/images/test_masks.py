"""Mask files: class indices in, the same class indices out, with colours for people."""

import io
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image, ImageFile

from jobs.demo.scenes import draw_scene
from pipeline.images.masks import (
    IGNORE_COLOR,
    coloured,
    decode_mask,
    encode_mask,
    encode_mask_by_pillow,
    make_palette,
)
from tests.disk_runs import encode, random_pixels

_ROOT = Path(__file__).parent.parent.parent.parent

_COLOURS = [(0, 0, 0), (128, 64, 128), (1, 2, 255)]
_PALETTE = make_palette(_COLOURS)

_MASK_PNG = encode_mask(random_pixels(2, 40, 50), _PALETTE, 1)

_MASKS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


@given(_MASKS, st.integers(0, 9))
def test_any_mask_survives(mask: NDArray[np.uint8], compress_level: int) -> None:
    """Every mask of every size is read back as it was, at every compression level."""
    decoded = decode_mask(encode_mask(mask, _PALETTE, compress_level))
    assert (decoded.shape, decoded.dtype) == (mask.shape, np.uint8)
    assert decoded.tolist() == mask.tolist()


@given(_MASKS, st.integers(0, 9))
def test_a_grey_mask_is_read_by_whoever_reads_grey(mask: NDArray[np.uint8], level: int) -> None:
    """Without a palette the file is an 8-bit grey PNG whose values are the class indices."""
    png = encode_mask(mask, None, level)
    with Image.open(io.BytesIO(png)) as image:
        assert image.mode == "L"
        assert np.asarray(image.convert("L")).tolist() == mask.tolist()
    assert decode_mask(png).tolist() == mask.tolist()


def test_a_grey_mask_can_be_given_its_colours() -> None:
    """It becomes the palette PNG of the same indices; what has a palette is left byte for byte."""
    mask = random_pixels(2, 40, 50)
    assert coloured(encode_mask(mask, None, 6), _PALETTE) == encode_mask(mask, _PALETTE, 1)
    assert coloured(encode_mask(mask, _PALETTE, 6), b"") == encode_mask(mask, _PALETTE, 6)


def test_all_256_values_survive() -> None:
    """Each value that a byte can have, also without a colour, is read back."""
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert decode_mask(encode_mask(mask, _PALETTE, 1)).tolist() == mask.tolist()


def test_a_mask_that_is_no_contiguous_array_survives() -> None:
    """A view with strides is encoded as what it shows."""
    view = random_pixels(0, 20, 30)[::2, ::-3]
    assert decode_mask(encode_mask(view, _PALETTE, 1)).tolist() == view.tolist()


@pytest.mark.parametrize("top", [0, 1, 3, 15, 255])
def test_the_file_is_an_8_bit_palette_png(top: int) -> None:
    """However few classes appear, a pixel is one byte: depth 8, colour type 3, no transparency."""
    png = encode_mask(np.full((5, 9), top, np.uint8), _PALETTE, 1)
    # PNG specification, 11.2.2: IHDR holds width, height, depth, colour type.
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert png[12:26] == b"IHDR" + bytes([0, 0, 0, 9, 0, 0, 0, 5, 8, 3])
    assert b"tRNS" not in png
    with Image.open(io.BytesIO(png)) as image:
        assert image.mode == "P"


def test_the_palette_holds_the_colours_of_the_classes() -> None:
    """The palette has 256 colours: the classes', black where there is none, 255 as void."""
    triples = [tuple(_PALETTE[index : index + 3]) for index in range(0, 768, 3)]
    assert triples == [*_COLOURS, *[(0, 0, 0)] * 252, IGNORE_COLOR]


def test_255_classes_have_a_colour_each() -> None:
    """The largest number of classes leaves the ignore index its own colour."""
    colours = [(index, 255 - index, 7) for index in range(255)]
    palette = make_palette(colours)
    assert palette == b"".join(bytes(colour) for colour in [*colours, IGNORE_COLOR])


def test_people_see_the_colours() -> None:
    """Any viewer shows the class colours."""
    png = encode_mask(np.array([[1, 0], [2, 255]], np.uint8), _PALETTE, 1)
    with Image.open(io.BytesIO(png)) as image:
        shown = np.asarray(image.convert("RGB")).tolist()
    assert shown == [[[128, 64, 128], [0, 0, 0]], [[1, 2, 255], [224, 224, 192]]]


def test_the_same_arguments_give_the_same_bytes() -> None:
    """Encoding is a function of its arguments: twice gives the same file."""
    mask = random_pixels(1, 40, 50) % 5
    assert encode_mask(mask, _PALETTE, 6) == encode_mask(mask.copy(), _PALETTE, 6)


def test_the_level_changes_the_size_only() -> None:
    """A higher level packs more; the pixels are the same."""
    mask = draw_scene(0, 120, 160)[1]
    files = [encode_mask(mask, _PALETTE, level) for level in (0, 1, 6)]
    assert len(files[0]) > mask.size > len(files[1]) > len(files[2])
    assert [decode_mask(png).tolist() for png in files] == [mask.tolist()] * 3


@given(_MASKS, st.integers(0, 1))
def test_the_bytes_are_those_of_any_zlib(mask: NDArray[np.uint8], level: int) -> None:
    """The default's files are what zlib itself makes of runs: hashes of two machines agree."""
    [packed] = [content for kind, content in _chunks(encode_mask(mask, _PALETTE, level))][2:3]
    packer = zlib.compressobj(level, strategy=zlib.Z_RLE)
    rows = b"".join(b"\0" + row.tobytes() for row in mask)
    assert packed == packer.compress(rows) + packer.flush()


@pytest.mark.parametrize("level", [0, 1, 2, 6, 9])
def test_threads_do_not_change_the_bytes(level: int) -> None:
    """New threads with memory of their own give the files that the first thread gave."""
    masks = [random_pixels(seed, 4, 8) % 3 for seed in range(100)]

    def encode_level(mask: NDArray[np.uint8]) -> bytes:
        return encode_mask(mask, _PALETTE, level)

    alone = [encode_level(mask) for mask in masks]
    for _ in range(40):
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(encode_level, masks)) == alone


# Readers


def _chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    """Take a PNG apart, as strictly as the specification is written (5.3)."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    found, place = [], 8
    while place < len(png):
        length = int.from_bytes(png[place : place + 4], "big")
        kind, content = png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        checksum = int.from_bytes(png[place + 8 + length : place + 12 + length], "big")
        assert checksum == zlib.crc32(kind + content)
        found.append((kind, content))
        place += 12 + length
    assert place == len(png)
    return found


@given(_MASKS, st.integers(0, 9))
def test_the_file_is_a_png_to_the_letter(mask: NDArray[np.uint8], level: int) -> None:
    """Four chunks with right checksums hold one whole zlib stream of unfiltered rows."""
    chunks = _chunks(encode_mask(mask, _PALETTE, level))
    assert [kind for kind, _ in chunks] == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    reader = zlib.decompressobj()
    rows = reader.decompress(chunks[2][1])
    assert (reader.eof, reader.unused_data) == (True, b"")
    assert rows == b"".join(b"\0" + row.tobytes() for row in mask)


@given(_MASKS, st.integers(0, 9))
def test_pillow_reads_it_as_its_own(mask: NDArray[np.uint8], level: int) -> None:
    """Pillow finds mode, size, palette and pixels of the file that it would have written itself."""
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    files = (encode(mask, _PALETTE, level) for encode in (encode_mask, encode_mask_by_pillow))
    ours, pillows = (Image.open(io.BytesIO(png)) for png in files)
    ours.copy().load()
    assert (ours.mode, ours.size, ours.info) == (pillows.mode, pillows.size, pillows.info)
    assert ours.getpalette() == pillows.getpalette()
    assert np.asarray(ours).tolist() == np.asarray(pillows).tolist() == mask.tolist()


def test_pillow_verifies_it() -> None:
    """Pillow's check of checksums passes."""
    with Image.open(io.BytesIO(_MASK_PNG)) as image:
        image.verify()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encode(Image.new("RGB", (4, 4)), "PNG"), "mode RGB"),
        (encode(Image.new("1", (4, 4)), "PNG"), "mode 1"),
        (encode(Image.new("P", (4, 4)), "GIF"), "no readable PNG"),
        (b"garbage", "no readable PNG"),
        (b"", "no readable PNG"),
        (_MASK_PNG[:-400], "no readable PNG"),
        (_MASK_PNG[:1000] + bytes(100) + _MASK_PNG[1100:], "no readable PNG"),
    ],
    ids=["rgb", "bits", "gif", "garbage", "empty", "cut off", "damaged"],
)
def test_what_is_no_mask_is_refused(data: bytes, reason: str) -> None:
    """A file that is no whole palette or grey PNG is a ValueError that says why."""
    with pytest.raises(ValueError, match=reason):
        decode_mask(data)


def test_a_png_whose_chunks_are_cut_short_is_refused() -> None:
    """A PNG with a chunk that Pillow trips over is a ValueError as well."""
    # An fcTL chunk, of an animation, has 26 bytes.
    chunk = b"fcTL" + b"\0" * 3
    broken = b"\0\0\0\3" + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    with pytest.raises(ValueError, match="no readable PNG"):
        decode_mask(_MASK_PNG[:33] + broken + _MASK_PNG[33:])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, len(_MASK_PNG)), st.binary(max_size=8), st.sampled_from((0, 1, 8, 4000)))
def test_damage_is_a_value_error(place: int, put: bytes, removed: int) -> None:
    """Whatever happens to a mask file, reading it gives a mask or a ValueError."""
    data = _MASK_PNG[:place] + put + _MASK_PNG[place + removed :]
    try:
        decoded = decode_mask(data)
    except ValueError:
        return
    assert (decoded.dtype, decoded.ndim) == (np.uint8, 2)


def test_pillows_own_limit_does_not_stand_in_the_way() -> None:
    """Reading masks alone, as verify does, Pillow refuses none for its size."""
    code = "import pipeline.images.masks, PIL.Image; print(PIL.Image.MAX_IMAGE_PIXELS)"
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "None"
