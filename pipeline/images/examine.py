"""What has to be known of labelled pictures before a training: little, found by decoding them.

These functions stand apart so that `isolated` can call them where a picture does no harm: bytes go
in, a few numbers come out.
"""

from typing import NamedTuple

import numpy as np

from pipeline.images.decode import decode_image, read_orientation, read_upright_size
from pipeline.images.ground_truth import Coding, decode_truth
from pipeline.images.likeness import perceptual_hash
from pipeline.images.masks import IGNORE_INDEX


class Examined(NamedTuple):
    """An image, upright.

    Attributes:
        size: Its (height, width) in pixels; None where it is bad and nobody minds.
        orientation: Its EXIF orientation, 1 to 8.
        likeness: Its perceptual hash, in hexadecimal digits; empty where it was not decoded.
    """

    size: tuple[int, int] | None = None
    orientation: int = 1
    likeness: str = ""

    def __str__(self) -> str:
        """Say its size, and what people overlook of it."""
        text = f"{self.size} (height, width)"
        if self.orientation > 1:
            text += (
                f": it has EXIF orientation {self.orientation}, and a truth must have the size of "
                "the upright image"
            )
        return text


def examine_image(data: bytes, max_pixels: int) -> Examined:
    """Decode an image.

    Args:
        data: The encoded image.
        max_pixels: The limit on height * width.

    Raises:
        ImageError: It can't be decoded.
    """
    pixels = decode_image(data, max_pixels)
    height, width, _ = pixels.shape
    return Examined((height, width), read_orientation(data), f"{perceptual_hash(pixels):016x}")


def examine_header(data: bytes, max_pixels: int) -> Examined:
    """Read an image's size without decoding it.

    Args:
        data: The encoded image.
        max_pixels: The limit on height * width.

    Raises:
        ImageError: It has no size that can be read.
    """
    return Examined(read_upright_size(data, max_pixels), read_orientation(data))


def count_classes(data: bytes, coding: Coding) -> tuple[tuple[int, int], list[int]]:
    """Count the pixels of each class in a truth.

    Args:
        data: The encoded truth.
        coding: How its values become class indices.

    Returns:
        Its (height, width), and the pixels per class; those without a class last.

    Raises:
        TruthError: It can't be read as class indices.
    """
    truth = decode_truth(data, coding)
    counts = np.bincount(truth.ravel(), minlength=IGNORE_INDEX + 1)
    height, width = truth.shape
    return (height, width), [*counts[: coding.num_classes].tolist(), int(counts[-1])]
