"""A batch of labelled images, without torch: whoever loads images does not wait for its import."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Batch:
    """The images of a step that fall to one worker, with their ground truth.

    Attributes:
        images: RGB, uint8 of shape (H, W, 3) each.
        truths: Class indices, uint8 each, 255 where there is none; of the image's shape (H, W),
            or of another where the network sees images at another scale than their own.
        places: Number of each showing since the beginning of the run, which seeds its dropout.
    """

    images: Sequence[NDArray[np.uint8]]
    truths: Sequence[NDArray[np.uint8]]
    places: Sequence[int]
