"""A pyramid: an encoder that halves the image six times, a decoder that goes back up through it.

The project's notes name what FCN lacks: fine detail, which is lost to the stride, and context of
the whole scene. So the decoder takes every level of the encoder, down to stride 2 (Lin et al.,
"Feature Pyramid Networks", 2017, section 3), and the levels end at stride 64, where a 3x3
convolution sees most of a picture. Nothing is pooled over the whole picture: a tile's scores are
those of the picture.

In the tensor names: N batch, C channels, H and W pixels at the stride of the level.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fcn.geometry import Geometry, Size
from fcn.interpolation import Window
from fcn.models.network import Network


class ConvNorm(nn.Module):
    """A convolution, its batch norm, and perhaps an activation."""

    def __init__(
        self,
        conv: nn.Conv2d,
        activation: nn.Module | None = None,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ) -> None:
        """Add a batch norm.

        Args:
            conv: Without a bias.
            activation: Behind the batch norm.
            eps: The eps of the batch norm.
            momentum: The momentum of the batch norm.
        """
        super().__init__()
        self.conv = conv
        self.norm: nn.Module = nn.BatchNorm2d(conv.out_channels, eps, momentum)
        self.activation = activation or nn.Identity()

    def forward(self, features_NCHW: torch.Tensor) -> torch.Tensor:
        """Apply them in turn."""
        features: torch.Tensor = self.activation(self.norm(self.conv(features_NCHW)))
        return features

    def fold(self) -> None:
        """Put the batch norm into the convolution."""
        assert isinstance(self.norm, nn.BatchNorm2d), "folded once"
        self.conv = fuse_conv_bn_eval(self.conv, self.norm)
        self.norm = nn.Identity()


class Encoder(nn.Module):
    """What a pyramid stands on: features at stride 2, 4, 8 and so on, each from those before."""

    levels: nn.ModuleList
    channels: tuple[int, ...]

    def forward(self, images_NCHW: torch.Tensor) -> list[torch.Tensor]:
        """Return the features of every level, the finest first."""
        found = [images_NCHW]
        for level in self.levels:
            found.append(level(found[-1]))
        return found[1:]

    def paths(self) -> list[list[nn.Module]]:
        """Return the convolutions of every level's longest path, in order."""
        return [
            [one for block in level.children() for one in longest_path(block)]
            for level in self.levels
        ]


def longest_path(block: nn.Module) -> Iterator[nn.Module]:
    """Return the convolutions of a block, but for its shortcut.

    Args:
        block: A `ConvNorm`, or a block with a `body` of them.
    """
    body = getattr(block, "body", block)
    return (module for module in body.modules() if isinstance(module, nn.Conv2d))


class Upsample2(nn.Module):
    """Bilinear upsampling by 2; at its border a picture goes on as it ends."""

    stride = 2

    def follow(self, before: Geometry) -> Geometry:
        """Return the geometry behind this layer: that of a transposed convolution of tents."""
        return before.upsampled(3, 2)

    def forward(self, features_NCHW: torch.Tensor, first: int, size: Size) -> torch.Tensor:
        """Upsample.

        Args:
            features_NCHW: Features or scores.
            first: The first row and column of the output that is wanted: 0 lies before input 0.
            size: How many rows and columns, (height, width).
        """
        framed = F.pad(features_NCHW, (1, 1, 1, 1), mode="replicate")
        height, width = framed.shape[-2:]
        finer = (2 * height - 1, 2 * width - 1)
        # The frame's first row and column are those before output 0.
        upsampled = F.interpolate(framed, finer, mode="bilinear", align_corners=True)
        rows, columns = (slice(1 + first, 1 + first + side) for side in size)
        return upsampled[..., rows, columns]


class FCNPyramid(Network):
    """An encoder, and a decoder that adds each of its levels to what comes from the coarser one."""

    def __init__(self, encoder: Encoder, num_classes: int, *, channels: int) -> None:
        """Build the decoder, untrained.

        Args:
            encoder: As built.
            num_classes: Score maps, background included.
            channels: The channels of the decoder.
        """
        super().__init__()
        self.encoder = encoder
        self.laterals = nn.ModuleList(
            ConvNorm(nn.Conv2d(number, channels, 1, bias=False)) for number in encoder.channels
        )
        self.mixes = nn.ModuleList(_mix(channels) for _ in encoder.channels)
        self.classifier = nn.Conv2d(channels, num_classes, 1)
        self._up = Upsample2()
        self._firsts: list[int] = []
        self._align()

    def score(self, images_NCHW: torch.Tensor, window: Window | None) -> torch.Tensor:  # noqa: ARG002 - every part is scored alike
        """Score images; see `Network.forward`."""
        levels = self.encoder(images_NCHW)
        features = self._level(len(levels) - 1, levels[-1], None)
        for index in reversed(range(len(levels) - 1)):
            features = self._level(index, levels[index], features)
        scores = self.classifier(features).float()
        size = (images_NCHW.shape[-2], images_NCHW.shape[-1])
        upsampled: torch.Tensor = self._up(scores, self._firsts[0], size)
        return upsampled

    def fold(self) -> None:
        """Put every batch norm into the convolution before it."""
        for module in list(self.modules()):
            if isinstance(module, ConvNorm):
                module.fold()

    def _level(self, index: int, level: torch.Tensor, coarser: torch.Tensor | None) -> torch.Tensor:
        added = self.laterals[index](level)
        if coarser is not None:
            size = (level.shape[-2], level.shape[-1])
            added = added + self._up(coarser, self._firsts[index + 1], size)
        mixed: torch.Tensor = self.mixes[index](F.relu(added, inplace=True))
        return mixed

    def _align(self) -> None:
        """Compute where levels meet, from the image to the coarsest, and describe the chain."""
        geometries, down = [Geometry()], list[nn.Module]()
        for path in self.encoder.paths():
            geometries.append(geometries[-1].then(path))
            down += path
        self._firsts = [
            coarse.then([self._up]).first_at(fine) for fine, coarse in pairwise(geometries)
        ]
        whole = geometries[-1]
        for first, mix in zip(reversed(self._firsts), reversed(self.mixes), strict=True):
            whole = whole.then(longest_path(mix)).then([self._up]).cropped(first)
        self.describe(down, whole)


def _mix(channels: int) -> nn.Module:
    """Let neighbours and then channels mix (Howard et al., "MobileNets", 2017, section 3.1)."""
    near = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    across = nn.Conv2d(channels, channels, 1, bias=False)
    return nn.Sequential(ConvNorm(near), ConvNorm(across, nn.ReLU(inplace=True)))


def context(before: int, channels: int, activation: nn.Module) -> nn.Sequential:
    """Build a level of twice the stride of the encoder's last, which sees most of a picture.

    Args:
        before: Channels of the level before.
        channels: Of this one.
        activation: Behind each convolution.
    """
    sizes: Sequence[tuple[int, int, int]] = ((before, 1, 1), (channels, 3, 2), (channels, 3, 1))
    return nn.Sequential(
        *(
            ConvNorm(nn.Conv2d(given, channels, side, stride, side // 2, bias=False), activation)
            for given, side, stride in sizes
        )
    )
