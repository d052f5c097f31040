"""Scores of any region of a picture: the network, and what test time adds to it.

Tensor names: N batch, H and W pixels, C channels or classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import nn

from fcn.geometry import Size
from fcn.inference.tiling import Region, whole
from fcn.interpolation import Interpolation, Window
from fcn.models.network import Network


@dataclass(frozen=True)
class View:
    """How a picture is shown to the network.

    Attributes:
        scale: Factor of height and width; bilinear.
        flip: Whether it is mirrored left to right.
    """

    scale: float = 1.0
    flip: bool = False


def make_views(scales: Sequence[float], *, flip: bool) -> tuple[View, ...]:
    """Combine the scales with and without a flip."""
    flips = (False, True) if flip else (False,)
    return tuple(View(scale, flipped) for scale, flipped in product(scales, flips))


class Scorer:
    """Scores regions of pictures; a region's scores are those that the whole picture has there."""

    def __init__(  # noqa: PLR0913 - keyword-only, one per thing that decides scores
        self,
        network: Network,
        preprocess: nn.Module,
        views: Sequence[View],
        *,
        dtype: torch.dtype,
        autocast: bool,
        whole: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        """Take the network.

        Args:
            network: On its device, in evaluation mode.
            preprocess: What pixels pass before.
            views: One, or several whose softmax values are averaged.
            dtype: The dtype of the network's arithmetic.
            autocast: Whether PyTorch casts to it, layer by layer; else the layers have it already.
            whole: What whole pictures go through in its place, such as its compiled form.
        """
        self._dtype = dtype
        self._autocast = autocast
        self._network = network
        self._whole = whole or network
        self._preprocess = preprocess
        self._views = views

    def scores(self, images_NHWC: torch.Tensor, region: Region) -> torch.Tensor:
        """Score a region of pictures of one size.

        Args:
            images_NHWC: The whole pictures, RGB, uint8, on the device of the network.
            region: Which part of them.

        Returns:
            Floating point scores of shape (N, num_classes, height, width of the region); of
            several views the logarithm of the mean softmax, which is what it takes to be a score.
        """
        if len(self._views) == 1:
            return self._view(images_NHWC, region, self._views[0])
        mean = torch.zeros(())
        for number, view in enumerate(self._views, start=1):
            softmax = torch.softmax(self._view(images_NHWC, region, view).float(), dim=1)
            mean = softmax if number == 1 else mean + (softmax - mean) / number
        return mean.log()

    def _view(self, images_NHWC: torch.Tensor, region: Region, view: View) -> torch.Tensor:
        picture = (images_NHWC.shape[1], images_NHWC.shape[2])
        scaled = (max(1, round(picture[0] * view.scale)), max(1, round(picture[1] * view.scale)))
        wanted = _scaled_region(region, picture, scaled)
        shown = wanted.mirrored(scaled[1]) if view.flip else wanted
        part = shown.surroundings(scaled, self._network.margin, self._network.stride)
        taken = part.mirrored(scaled[1]) if view.flip else part
        pixels = _scaled_pixels(images_NHWC, taken, scaled)
        scores = self._run(pixels.flip(2) if view.flip else pixels, part, scaled)
        rows, columns = shown.within(part)
        scores = scores[..., rows, columns]
        scores = scores.flip(-1) if view.flip else scores
        if scaled == picture:
            return scores
        back = Interpolation(scaled, picture)
        return back.part(scores.float(), wanted.first, region.first, region.size)

    def _run(self, pixels_NHWC: torch.Tensor, part: Region, picture: Size) -> torch.Tensor:
        dtype = torch.float32 if self._autocast else self._dtype
        images_NCHW = self._preprocess(pixels_NHWC, dtype)
        with torch.autocast(images_NCHW.device.type, self._dtype, enabled=self._autocast):
            if part == whole(picture):
                return self._whole(images_NCHW)
            # Not compiled: every place in the picture would be compiled anew.
            return self._network(images_NCHW, Window(part.first, picture))  # type: ignore[no-any-return]  # nn.Module


def _scaled_region(region: Region, picture: Size, scaled: Size) -> Region:
    """Find the scores of the scaled picture from which those of a region are made."""
    if scaled == picture:
        return region
    first, behind = Interpolation(scaled, picture).sources(region.first, region.size)
    return Region(*first, *behind)


def _scaled_pixels(images_NHWC: torch.Tensor, taken: Region, scaled: Size) -> torch.Tensor:
    """Take a region of the scaled picture, from as little of the picture as it needs."""
    picture = (images_NHWC.shape[1], images_NHWC.shape[2])
    if scaled == picture:
        return images_NHWC[:, taken.top : taken.bottom, taken.left : taken.right]
    there = Interpolation(picture, scaled)
    (top, left), (bottom, right) = there.sources(taken.first, taken.size)
    part_NCHW = images_NHWC[:, top:bottom, left:right].permute(0, 3, 1, 2).float()
    return there.part(part_NCHW, (top, left), taken.first, taken.size).permute(0, 2, 3, 1)
