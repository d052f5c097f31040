"""Drawing COCO's shapes as class indices, by pycocotools, and Label Studio's brushes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError, SettingError
from pipeline.images.brush import unpack
from pipeline.images.masks import IGNORE_INDEX
from pipeline.inputs.coco import Outlined, Shape

try:
    from pycocotools import mask as rle
except ImportError as error:
    raise SettingError(
        "COCO's annotations are drawn by pycocotools, which is not installed: "
        "pip install 'fcn-pipeline[export]'"
    ) from error

_MIN_NUMBERS = 6


def draw(image: Outlined, indices: Mapping[str, int | None], elsewhere: int) -> NDArray[np.uint8]:
    """Draw the shapes of an image, the later over the earlier.

    Args:
        image: With its shapes.
        indices: Class index by category; None draws 255.
        elsewhere: What pixels without a shape are.

    Returns:
        Class indices, uint8 of shape (H, W).

    Raises:
        InputError: A shape can't be drawn.
    """
    truth = np.full(image.size, elsewhere, np.uint8)
    for shape in image.shapes:
        index = indices[shape.category]
        truth[_pixels(image, shape)] = IGNORE_INDEX if index is None else index
    return truth


def _pixels(image: Outlined, shape: Shape) -> NDArray[np.bool_]:
    what = f"annotation {shape.id} ({shape.category}) of {image.name}"
    try:
        if isinstance(shape.outline, dict) and "brush" in shape.outline:
            return unpack(shape.outline["brush"], image.size)
        packed = _packed(shape.outline, image.size)
        if tuple(packed["size"]) != image.size:
            raise InputError(
                f"{what} is of {packed['size']}, its image of {list(image.size)} (height, width)"
            )
        pixels: NDArray[np.bool_] = rle.decode(packed).astype(bool)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise InputError(
            f"{what} has no outline that can be drawn (polygons, RLE, a brush): {error}"
        ) from error
    return pixels


def _packed(outline: Any, size: tuple[int, int]) -> dict[str, Any]:
    """Bring polygons, lists of runs, and packed runs into the form that pycocotools decodes."""
    if isinstance(outline, dict):
        height, width = outline["size"]
        counts = outline["counts"]
        runs = _unpacked(counts) if isinstance(counts, str) else counts
        # pycocotools leaves pixels that no run reaches as they are in memory.
        if sum(runs) != height * width or min(runs) < 0:
            raise ValueError(f"runs of {sum(runs)} pixels in all for {height} x {width}")
        packed: dict[str, Any] = rle.frPyObjects({**outline, "counts": runs}, height, width)
        return packed
    if not outline or not all(len(one) >= _MIN_NUMBERS and not len(one) % 2 for one in outline):
        raise ValueError("a polygon is a list of at least three x, y")
    corners = [[float(number) for number in one] for one in outline]
    if not np.isfinite(np.concatenate(corners)).all():
        raise ValueError("corners are numbers")
    merged: dict[str, Any] = rle.merge(rle.frPyObjects(corners, *size))
    return merged


def _unpacked(counts: str) -> list[int]:
    """Read packed runs (cocoapi, maskApi.c, rleFrString).

    A number is groups of five bits, the lowest first, each a character from 48 on; its sixth bit
    says that more follow. From the fourth run on it is the difference from the run two before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts.encode():
        bits = character - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value |= -1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return runs
