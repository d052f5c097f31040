"""Truth files to class indices: three codings, and what is refused with its values."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image

from pipeline.images.ground_truth import Coding, TruthError, decode_truth, is_coloured
from tests.disk_runs import random_pixels

_INDICES = Coding("indices", 3)
_COLOURS = {(0, 0, 0): 0, (128, 0, 0): 1, (0, 128, 0): 2}
_MASK = np.array([[0, 1, 2], [2, 255, 0]], np.uint8)


def png(array: np.ndarray, *, palette: bool = False) -> bytes:
    image = Image.fromarray(array)
    if palette:
        image.putpalette(bytes(range(256)) * 3)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_indices_are_taken_as_they_are():
    """Grey and palette files hold class indices, 255 where there is no class."""
    for palette in (False, True):
        found = decode_truth(png(_MASK, palette=palette), _INDICES)

        assert found.dtype == np.uint8
        assert np.array_equal(found, _MASK)


def test_sixteen_bits_are_read():
    """A grey file of 16 bits per pixel holds indices too."""
    assert np.array_equal(decode_truth(png(_MASK.astype(np.uint16)), _INDICES), _MASK)


def test_sixteen_bits_are_read_in_both_orders_of_bytes():
    """A TIFF of 16 bits holds indices whichever byte comes first, and is told as such."""
    for order in "<>":
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, _MASK.astype(np.uint16), byteorder=order)

        assert not is_coloured(buffer.getvalue())
        assert np.array_equal(decode_truth(buffer.getvalue(), _INDICES), _MASK)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[0, 300, 65535]], np.uint16), "mode I;16, .*truth_coding=indices or ids"),
        (np.array([[0, -1, 300]], np.int32), "mode I, .*truth_coding=indices or ids"),
        (np.array([[0, 1, 300]], np.float32), "mode F, .*save it as an RGB PNG"),
    ],
)
def test_more_than_eight_bits_are_no_colours(values: np.ndarray, words: str):
    """Values are not cut off at white or black, which may both be classes, but refused."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values)
    with pytest.raises(TruthError, match=words):
        decode_truth(
            buffer.getvalue(), Coding("colors", 2, colors={(0, 0, 0): 0, (255, 255, 255): 1})
        )


def test_colours_become_the_indices_of_their_classes():
    """RGB files are looked up by the colours of the classes; black of no class has no class."""
    pixels = np.array(list(_COLOURS), np.uint8)[np.array([[0, 1], [2, 0]])]
    assert decode_truth(png(pixels), Coding("colors", 3, colors=_COLOURS)).tolist() == [
        *([0, 1], [2, 0]),
    ]

    without_black = Coding("colors", 2, colors={(128, 0, 0): 0, (0, 128, 0): 1})
    assert decode_truth(png(pixels), without_black).tolist() == [[255, 0], [1, 255]]


def test_several_colours_are_one_class_or_none():
    """A class may have further colours, and colours may be listed as those of no class."""
    pixels = np.array([[[0, 0, 9], [128, 0, 0], [0, 0, 8]]], np.uint8)
    coding = Coding("colors", 2, colors={(128, 0, 0): 1, (0, 0, 9): 1, (0, 0, 8): 255})
    assert decode_truth(png(pixels), coding).tolist() == [[1, 1, 255]]


def test_a_binary_mask_is_read_by_its_colours():
    """0 and 255 in a grey file are black and white, where those are classes."""
    coding = Coding("colors", 2, colors={(0, 0, 0): 0, (255, 255, 255): 1})
    assert decode_truth(png(np.array([[0, 255]], np.uint8)), coding).tolist() == [[0, 1]]


def test_ids_are_mapped():
    """Ids that the table knows become classes, all others have none."""
    found = decode_truth(png(np.array([[7, 8, 0, 33]], np.uint8)), Coding("ids", 2, {7: 0, 8: 1}))
    assert found.tolist() == [[0, 1, 255, 255]]


@pytest.mark.parametrize(
    ("data", "coding", "words"),
    [
        (png(np.array([[0, 3, 3, 9]], np.uint8)), _INDICES, "3 in 2 pixels, 9 in 1 pixels"),
        (png(np.full((2, 2, 3), 9, np.uint8)), _INDICES, "truth_coding=colors"),
        (png(np.full((2, 2, 3), 9, np.uint8)), Coding("colors", 3, colors=_COLOURS),
         r"1 colours of no class: \(9, 9, 9\) in 4 pixels"),
        (png(np.array([[7, 7, 26001]], np.uint16)), Coding("ids", 1, {7: 0}),
         "ids outside of 0 to 255: 26001 in 1 pixels$"),
        (png(random_pixels(0, 40, 40) % 3)[:300], _INDICES, "can't be read"),
        (b"no picture", _INDICES, "is none of PNG"),
    ],
    ids=["values", "colours for indices", "unknown colour", "ids", "truncated", "no picture"],
)  # fmt: skip
def test_what_is_no_truth_is_refused_with_its_values(data: bytes, coding: Coding, words: str):
    """The message names values or colours, and in how many pixels they are."""
    with pytest.raises(TruthError, match=words):
        decode_truth(data, coding)


def test_jpegs_are_no_truths():
    """JPEG changes values at every edge; it is refused whatever it holds."""
    buffer = io.BytesIO()
    Image.fromarray(_MASK).save(buffer, "JPEG")
    with pytest.raises(TruthError, match="is none of"):
        decode_truth(buffer.getvalue(), _INDICES)


def test_codings_are_told_apart():
    """RGB is colours, grey and palettes are indices."""
    assert is_coloured(png(np.zeros((2, 2, 3), np.uint8)))
    assert not is_coloured(png(_MASK))
    assert not is_coloured(png(_MASK, palette=True))
