"""Augmentation: another view of an image and its truth, the same for both; pure functions.

First the image is brought to the scale at which the network sees images, as labelling does it:
bilinear between the nearest pixels. What is varied comes after that, through Pillow's `resize`
with a box, which smooths and computes only what is cut out. The truth is sampled once, straight
from the original, at the original's scale whatever the network sees: classes can't be averaged,
and those of thin things would be lost at half the size.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

# Beside an image that is smaller than the crop: ImageNet's mean, and no class.
_GREY = (124, 116, 104)
_NO_CLASS = 255

Pixels = NDArray[np.uint8]
Size = tuple[int, int]


@dataclass(frozen=True)
class Augment:
    """What may be varied; fields as in `fcn.training.recipes.Augmentation`.

    `seen_at` is the factor of an image's size at which the network sees it, varied or not.
    """

    crop: tuple[int, int] | None = None
    scales: tuple[float, float] = (1.0, 1.0)
    flip: bool = False
    colour: float = 0.0
    hue: float = 0.0
    blur: float = 0.0
    rotation: float = 0.0
    seen_at: float = 1.0

    def __call__(self, image: Pixels, truth: Pixels, seed: list[int]) -> tuple[Pixels, Pixels]:
        """Draw a view.

        Args:
            image: RGB, uint8 of shape (H, W, 3).
            truth: Class indices, uint8 of shape (H, W).
            seed: The same seed draws the same view.

        Returns:
            The image in the size of the crop, or without a crop in that of the scaled image; and
            the truth of the same window, in the size that it has at the scale of the original.
        """
        random = np.random.default_rng(seed)
        whole = _seen(Image.fromarray(image), self.seen_at)
        scale = self._scale(random, (whole.height, whole.width))
        height, width = (max(1, round(side * scale)) for side in (whole.height, whole.width))
        window = _Window.draw(random, (height, width), self.crop or (height, width))
        picture = window.cut(whole)
        classes = window.classes(truth, self._size_of_truth(truth, scale))
        if self.flip and random.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            classes = classes[:, ::-1]
        if self.rotation:
            angle = random.uniform(-self.rotation, self.rotation)
            picture, classes = _turned(picture, angle, _GREY), _turned_classes(classes, angle)
        if self.colour:
            picture = _vary_colours(picture, random, self.colour)
        if self.hue:
            picture = _shift_hue(picture, random.uniform(-self.hue, self.hue))
        if self.blur:
            picture = picture.filter(ImageFilter.GaussianBlur(random.uniform(0, self.blur)))
        return np.asarray(picture), classes

    def _scale(self, random: np.random.Generator, whole: Size) -> float:
        """Draw a factor; where the largest fills the crop, none is drawn that does not."""
        least, most = self.scales
        if self.crop:
            filling = max(part / side for part, side in zip(self.crop, whole, strict=True))
            least = max(least, min(most, filling))
        return float(np.exp(random.uniform(*np.log((least, most)))))

    def _size_of_truth(self, truth: Pixels, scale: float) -> Size:
        """Return the window's size at the scale of the original: the same for all of a crop."""
        sides = (
            [part / self.seen_at for part in self.crop]
            if self.crop
            else [side * scale for side in truth.shape]
        )
        height, width = (max(1, round(side)) for side in sides)
        return height, width


@dataclass(frozen=True)
class _Window:
    """A window of `size` whose first pixel lies at `first` of the image scaled to `scaled`."""

    first: Size
    size: Size
    scaled: Size

    @staticmethod
    def draw(random: np.random.Generator, scaled: Size, size: Size) -> "_Window":
        # A small image lies anywhere in the window, a window anywhere in a large image.
        first = [
            int(random.integers(min(0, whole - part), max(0, whole - part) + 1))
            for whole, part in zip(scaled, size, strict=True)
        ]
        return _Window((first[0], first[1]), size, scaled)

    def cut(self, image: Image.Image) -> Image.Image:
        """Scale and cut out, in one go."""
        (top, bottom), (left, right) = (
            (max(0, first), min(first + part, whole))
            for first, part, whole in zip(self.first, self.size, self.scaled, strict=True)
        )
        rows, columns = image.height / self.scaled[0], image.width / self.scaled[1]
        box = (left * columns, top * rows, right * columns, bottom * rows)
        part = image.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box)
        if (part.height, part.width) == self.size:
            return part
        canvas = Image.new(image.mode, (self.size[1], self.size[0]), _GREY)
        canvas.paste(part, (left - self.first[1], top - self.first[0]))
        return canvas

    def classes(self, truth: Pixels, size: Size) -> Pixels:
        """Take the window's classes in another size: those of the pixels that its centres hit."""
        (rows, in_rows), (columns, in_columns) = (
            self._hit(axis, truth.shape[axis], size[axis]) for axis in (0, 1)
        )
        found = truth[rows[:, None], columns]
        found[~(in_rows[:, None] & in_columns)] = _NO_CLASS
        return found

    def _hit(
        self, axis: int, side: int, number: int
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Find the pixels of a truth along an axis, and which of the centres hit one."""
        centres = self.first[axis] + (np.arange(number) + 0.5) * (self.size[axis] / number)
        hit = (centres * (side / self.scaled[axis])).astype(np.int64).clip(0, side - 1)
        return hit, (centres >= 0) & (centres < self.scaled[axis])


def _seen(image: Image.Image, scale: float) -> Image.Image:
    """Scale an image as `fcn.inference.scorer` shows it."""
    if scale == 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    matrix = (image.width / width, 0, 0, 0, image.height / height, 0)
    return image.transform(
        (width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
    )


def _vary_colours(image: Image.Image, random: np.random.Generator, most: float) -> Image.Image:
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhance(image).enhance(1 + random.uniform(-most, most))
    return image


def _shift_hue(image: Image.Image, share: float) -> Image.Image:
    """Move all hues around the circle, as torchvision's ColorJitter does, by a share of it."""
    hue, saturation, value = image.convert("HSV").split()
    moved = hue.point([(level + round(share * 256)) % 256 for level in range(256)])
    return Image.merge("HSV", (moved, saturation, value)).convert(image.mode)


def _turned(image: Image.Image, angle: float, fill: tuple[int, ...]) -> Image.Image:
    """Turn a picture about its centre; what comes from beyond its edge is grey."""
    return image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=fill)


def _turned_classes(classes: Pixels, angle: float) -> Pixels:
    """Turn classes about their centre, the same angle: to the nearest, and none beyond the edge."""
    turned = Image.fromarray(classes).rotate(angle, Image.Resampling.NEAREST, fillcolor=_NO_CLASS)
    return np.asarray(turned)
