"""Augmentation: another view of an image and its truth, the same for both; pure functions.

First the image is brought to the scale at which the network sees images, as labelling does it:
bilinear between the nearest pixels. What is varied comes after that, through Pillow's `resize`
with a box, which smooths and computes only what is cut out.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

# Beside an image that is smaller than the crop: ImageNet's mean, and no class.
_GREY = (124, 116, 104)
_NO_CLASS = 255

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Augment:
    """What may be varied; fields as in `fcn.training.recipes.Augmentation`.

    `seen_at` is the factor of an image's size at which the network sees it, varied or not.
    """

    crop: tuple[int, int] | None = None
    scales: tuple[float, float] = (1.0, 1.0)
    flip: bool = False
    colour: float = 0.0
    seen_at: float = 1.0

    def __call__(self, image: Pixels, truth: Pixels, seed: list[int]) -> tuple[Pixels, Pixels]:
        """Draw a view.

        Args:
            image: RGB, uint8 of shape (H, W, 3).
            truth: Class indices, uint8 of shape (H, W).
            seed: The same seed draws the same view.

        Returns:
            Both in the size of the crop, or without a crop in that of the scaled image.
        """
        random = np.random.default_rng(seed)
        whole, classes = (_seen(Image.fromarray(one), self.seen_at) for one in (image, truth))
        scale = float(np.exp(random.uniform(*np.log(self.scales))))
        height, width = (max(1, round(side * scale)) for side in (whole.height, whole.width))
        window = _Window.draw(random, (height, width), self.crop or (height, width))
        picture = window.cut(whole, Image.Resampling.BILINEAR, _GREY)
        mask = window.cut(classes, Image.Resampling.NEAREST, _NO_CLASS)
        if self.flip and random.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            mask = mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.colour:
            picture = _vary_colours(picture, random, self.colour)
        return np.asarray(picture), np.asarray(mask)


@dataclass(frozen=True)
class _Window:
    """A window of `size` whose first pixel lies at `first` of the image scaled to `scaled`."""

    first: tuple[int, int]
    size: tuple[int, int]
    scaled: tuple[int, int]

    @staticmethod
    def draw(
        random: np.random.Generator, scaled: tuple[int, int], size: tuple[int, int]
    ) -> "_Window":
        # A small image lies anywhere in the window, a window anywhere in a large image.
        first = [
            int(random.integers(min(0, whole - part), max(0, whole - part) + 1))
            for whole, part in zip(scaled, size, strict=True)
        ]
        return _Window((first[0], first[1]), size, scaled)

    def cut(
        self, image: Image.Image, resampling: Image.Resampling, filling: int | tuple[int, ...]
    ) -> Image.Image:
        """Scale and cut out, in one go."""
        (top, bottom), (left, right) = (
            (max(0, first), min(first + part, whole))
            for first, part, whole in zip(self.first, self.size, self.scaled, strict=True)
        )
        rows, columns = image.height / self.scaled[0], image.width / self.scaled[1]
        box = (left * columns, top * rows, right * columns, bottom * rows)
        part = image.resize((right - left, bottom - top), resampling, box)
        if (part.height, part.width) == self.size:
            return part
        canvas = Image.new(image.mode, (self.size[1], self.size[0]), filling)
        canvas.paste(part, (left - self.first[1], top - self.first[0]))
        return canvas


def _seen(image: Image.Image, scale: float) -> Image.Image:
    """Scale an image as `fcn.inference.scorer` shows it; a truth by its nearest pixels."""
    if scale == 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    resampling = Image.Resampling.NEAREST if image.mode == "L" else Image.Resampling.BILINEAR
    matrix = (image.width / width, 0, 0, 0, image.height / height, 0)
    return image.transform((width, height), Image.Transform.AFFINE, matrix, resampling)


def _vary_colours(image: Image.Image, random: np.random.Generator, most: float) -> Image.Image:
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(1 + random.uniform(-most, most))
    return image
