"""A mask laid over its photograph, small enough for a page: pure functions."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pipeline.images.masks import IGNORE_INDEX, make_palette

_STRENGTH = 0.55
# Of what a spotlight is not on.
_DIMMED = 0.45
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_EDGE = 255.0
# Lines are left out where more than this share of what is so many pixels near is lines; of two
# that cross it is less.
_NEAR, _CROWDED = 4, 0.3
_WORST_QUALITY, _BEST_QUALITY, _STEP = 20, 80, 15


def shrink(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Make a picture so small that its longer side is at most `side`.

    Args:
        pixels: RGB, uint8 of shape (H, W, 3).
        side: In pixels.

    Returns:
        The same shape of picture; as it was, if it is small already.
    """
    size = _small_size(pixels.shape[0], pixels.shape[1], side)
    picture = Image.fromarray(pixels)
    return np.asarray(picture.resize(size, Image.Resampling.BOX, reducing_gap=2.0))


def shrink_mask(mask: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Make a mask as small as `shrink` makes its picture, of the class indices that it has.

    Args:
        mask: Class indices, uint8 of shape (H, W).
        side: In pixels.
    """
    size = _small_size(mask.shape[0], mask.shape[1], side)
    return np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))


def _small_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Return (width, height), as Pillow wants them."""
    factor = min(1.0, side / max(height, width))
    return max(1, round(width * factor)), max(1, round(height * factor))


def lay_over(
    pixels: NDArray[np.uint8], mask: NDArray[np.uint8], colours: Sequence[tuple[int, int, int]]
) -> NDArray[np.uint8]:
    """Tint a picture with the colours of its classes, and draw the lines between them.

    Args:
        pixels: RGB, uint8 of shape (H, W, 3).
        mask: Class indices, uint8 of shape (H, W); 255, which is no class, is left grey.
        colours: RGB by class index.

    Returns:
        RGB, uint8 of shape (H, W, 3).
    """
    grey = _grey(pixels)
    palette = np.frombuffer(make_palette(colours), np.uint8).reshape(-1, 3).astype(np.float32)
    tinted = (1 - _STRENGTH) * (0.5 * grey + 0.5 * pixels) + _STRENGTH * palette[mask]
    return _finish(np.where((mask == IGNORE_INDEX)[..., None], grey, tinted), _edges(mask))


def light_up(
    pixels: NDArray[np.uint8], mask: NDArray[np.uint8], index: int, colour: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Show where one class is: in its colour, on a picture that is dark and grey elsewhere.

    Args:
        pixels: RGB, uint8 of shape (H, W, 3).
        mask: Class indices, uint8 of shape (H, W).
        index: The index of the class.
        colour: The colour of the class.

    Returns:
        RGB, uint8 of shape (H, W, 3).
    """
    lit = mask == index
    tinted = (1 - _STRENGTH) * pixels + _STRENGTH * np.array(colour, np.float32)
    return _finish(np.where(lit[..., None], tinted, _DIMMED * _grey(pixels)), _edges(lit))


def _grey(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    grey: NDArray[np.float32] = (pixels @ _LUMA)[..., None].repeat(3, axis=2)
    return grey


def _edges(values: NDArray[np.uint8] | NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find the pixels whose neighbour to the right or below is another."""
    edges = np.zeros(values.shape, bool)
    edges[:, :-1] |= values[:, 1:] != values[:, :-1]
    edges[:-1] |= values[1:] != values[:-1]
    # Where there are many, they would hide the classes between them.
    density = Image.fromarray(edges.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(_NEAR))
    return edges & (np.asarray(density) < _CROWDED * 255)


def _finish(pixels: NDArray[np.float32], edges: NDArray[np.bool_]) -> NDArray[np.uint8]:
    pixels = np.where(edges[..., None], 0.35 * pixels + 0.65 * _EDGE, pixels)
    return pixels.round().clip(0, 255).astype(np.uint8)


def as_webp(pixels: NDArray[np.uint8], max_bytes: int) -> bytes:
    """Encode a small picture as WebP, in the best quality that fits, or else half as large.

    Args:
        pixels: RGB, uint8 of shape (H, W, 3).
        max_bytes: Of the file; some hundred are enough for any picture.
    """
    for quality in range(_BEST_QUALITY, _WORST_QUALITY - 1, -_STEP):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="WEBP", quality=quality)
        if buffer.tell() <= max_bytes:
            return buffer.getvalue()
    side = max(pixels.shape) // 2
    return as_webp(shrink(pixels, side), max_bytes) if side > 1 else buffer.getvalue()
