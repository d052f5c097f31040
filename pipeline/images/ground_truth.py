"""Truth files to class indices: pure functions.

A truth is a PNG (or another lossless file that `decode` reads) in one of three codings:

* `indices`: a grey or palette file whose values are class indices, 255 for no class.
* `ids`: the same with other numbers, which a table maps to class indices (Cityscapes, or `ids` of
  a classes file).
* `colors`: RGB, or grey read as RGB, whose colours are those of the classes, one or several for
  each; black that is no class's colour has no class, as CamVid's void.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from pipeline.images.damage import DAMAGE
from pipeline.images.masks import IGNORE_INDEX

CODINGS = ("indices", "ids", "colors")

# Lossy formats change values at edges; they are refused as truth.
_FORMATS = ("PNG", "TIFF", "BMP", "GIF")
_INDEX_MODES = ("P", "L", "1", "I;16", "I;16B", "I")
# Of others, Pillow's RGB would be values that are cut off, or colours that are estimated.
_COLOUR_MODES = ("RGB", "RGBA", "RGBX", "P", "PA", "L", "LA", "1")
_BLACK = 0


class TruthError(ValueError):
    """A truth can't be read as class indices; the message says why."""


class NoClassError(TruthError):
    """A truth has values or colours that are no class's."""


@dataclass(frozen=True)
class Coding:
    """How values of a truth file become class indices.

    Attributes:
        kind: One of `CODINGS`.
        num_classes: Class indices are 0 to `num_classes` - 1.
        ids: Of `ids`: class index by value of the file; other values have no class.
        colors: Of `colors`: class index by RGB; 255 for no class.
    """

    kind: str
    num_classes: int
    ids: Mapping[int, int] | None = None
    colors: Mapping[tuple[int, int, int], int] = field(default_factory=dict)

    def described(self) -> list[Any]:
        """Return all of it as JSON has it, for hashes."""
        tables = sorted((self.ids or {}).items()), sorted(self.colors.items())
        return [self.kind, self.num_classes, *([list(pair) for pair in table] for table in tables)]


def decode_truth(data: bytes, coding: Coding) -> NDArray[np.uint8]:
    """Decode a truth file.

    Args:
        data: The file.
        coding: How to read its values.

    Returns:
        Class indices, uint8 of shape (H, W), 255 where there is no class.

    Raises:
        TruthError: It is no such file.
        NoClassError: Values or colours are of no class; it says how many pixels have which.
    """
    image = _open(data)
    if coding.kind == "colors":
        return _from_colours(_rgb_of(image), coding.colors)
    if image.mode not in _INDEX_MODES:
        raise TruthError(
            f"has mode {image.mode}, class indices are in grey or palette files; colours are read "
            "with truth_coding=colors"
        )
    values = np.asarray(image).astype(np.int64)
    if coding.kind == "ids":
        return _from_ids(values, coding.ids or {})
    wrong = (values >= coding.num_classes) & (values != IGNORE_INDEX) | (values < 0)
    if wrong.any():
        raise NoClassError(
            f"values outside of 0 to {coding.num_classes - 1} (and 255, no class): "
            f"{histogram(values[wrong])}"
        )
    return values.astype(np.uint8)


def histogram(values: NDArray[np.int64]) -> str:
    """Say which values there are and how many pixels have each, the most frequent first."""
    found, counts = np.unique(values, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:8]
    shown = ", ".join(f"{found[index]} in {counts[index]:,} pixels" for index in most)
    return shown + (f", and {found.size - 8} more values" if found.size > 8 else "")


def _open(data: bytes) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            image.load()
            return image
    except PIL.UnidentifiedImageError as error:
        raise TruthError(f"is none of {', '.join(_FORMATS)}") from error
    except DAMAGE as error:
        raise TruthError(f"can't be read: {str(error) or type(error).__name__}") from error


def _rgb_of(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode in _COLOUR_MODES:
        return np.asarray(image.convert("RGB"))
    remedy = (
        "numbers of classes are read with truth_coding=indices or ids, in all files alike"
        if image.mode in _INDEX_MODES
        else "save it as an RGB PNG"
    )
    raise TruthError(f"has mode {image.mode}, which has no colours of 8 bits; {remedy}")


def _from_ids(values: NDArray[np.int64], ids: Mapping[int, int]) -> NDArray[np.uint8]:
    table = np.full(256, IGNORE_INDEX, np.uint8)
    for value, index in ids.items():
        table[value] = index
    wrong = (values < 0) | (values > 255)
    if wrong.any():
        raise TruthError(f"ids outside of 0 to 255: {histogram(values[wrong])}")
    return table[values]


def _from_colours(
    pixels: NDArray[np.uint8], colours: Mapping[tuple[int, int, int], int]
) -> NDArray[np.uint8]:
    codes = _code(pixels)
    known = _code(np.array(list(colours), np.uint8).reshape(-1, 3))
    order = np.argsort(known)
    place = np.searchsorted(known, codes, sorter=order).clip(max=known.size - 1)
    hit = known[order[place]] == codes
    wrong = ~hit & (codes != _BLACK)
    if wrong.any():
        names, counts = np.unique(codes[wrong], return_counts=True)
        most = np.argsort(-counts)[:5]
        shown = ", ".join(f"{_rgb(names[at])} in {counts[at]:,} pixels" for at in most)
        raise NoClassError(f"{names.size} colours of no class: {shown}")
    index = np.array(list(colours.values()), np.uint8)[order[place]]
    return np.where(hit, index, IGNORE_INDEX).astype(np.uint8)


def _code(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    red, green, blue = (pixels[..., channel].astype(np.int64) for channel in range(3))
    return red << 16 | green << 8 | blue


def _rgb(code: int) -> str:
    return f"({code >> 16}, {code >> 8 & 255}, {code & 255})"


def is_coloured(data: bytes) -> bool:
    """Return whether a truth file holds colours instead of class indices. Raises TruthError."""
    return _open(data).mode not in _INDEX_MODES


def is_grey(data: bytes) -> bool:
    """Return whether a truth file has neither colours nor a palette. Raises TruthError."""
    return _open(data).mode in _INDEX_MODES[1:]
