"""Samples to 8-bit RGB: transparency over white, high bytes, inks. The same for every format."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import ErrorCode, ImageError

_WHITE = (255, 255, 255, 255)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded picture to RGB.

    Args:
        image: In any mode of Pillow's.

    Raises:
        ImageError: unsupported_mode.
    """
    mode = image.mode
    if mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if mode in ("I", "F"):
        raise ImageError(
            ErrorCode.UNSUPPORTED_MODE,
            f"mode {mode}: 32-bit samples have no defined range; convert to 8 or 16 bits",
        )
    try:
        if image.has_transparency_data:
            picture = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", picture.size, _WHITE), picture).convert(
                "RGB"
            )
        return image.convert("RGB")
    except ValueError as error:
        raise ImageError(ErrorCode.UNSUPPORTED_MODE, f"mode {mode}: {error}") from error


def premultiplied_over_white(
    colour: NDArray[np.uint8], alpha: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Lay colours that hold their alpha already over white.

    Args:
        colour: RGB of shape (H, W, 3), each no larger than its alpha.
        alpha: Of shape (H, W).

    Returns:
        RGB of shape (H, W, 3).
    """
    white = 255 - alpha.astype(np.uint16)
    laid: NDArray[np.uint8] = np.minimum(colour + white[..., np.newaxis], 255).astype(np.uint8)
    return laid
