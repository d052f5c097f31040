"""`fcn_all_skips`: five blocks down, five transposed convolutions up, a sum with every pool.

In the tensor names: N batch, C channels, H and W pixels at the stride of the level.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import cast

import torch
from torch import nn

# Channels of the five blocks and of the decoder's end, as multiples of the width.
_BLOCKS = (1, 2, 4, 8, 8)
_DECODER = (8, 4, 2, 1)


class FCNAllSkips(nn.Module):
    """The vanilla network of the project's notes, for images of any size from 1 x 1 up.

    Each block is two 3x3 convolutions with ReLU and a 2x2 max pool; each step up is a 3x3
    transposed convolution of stride 2, ReLU, then batch norm, summed with the pool of its level.

    The pools round up and each step up ends at the size of the level that it meets. At sizes
    that are multiples of 32 this is the notes' network exactly; at others theirs does not run.
    """

    def __init__(self, num_classes: int, width: int = 64, in_channels: int = 3) -> None:
        """Build the network, untrained.

        Convolutions start as in He et al. 2015 (sec. 2.2), which keeps the signal's scale from
        layer to layer; PyTorch's default lets it fade over so many layers without batch norm.

        Args:
            num_classes: Score maps, background included.
            width: Channels of the first block, an even number; 64 is the original.
            in_channels: Channels of the input.
        """
        super().__init__()
        block_channels = [factor * width for factor in _BLOCKS]
        inputs = [in_channels, *block_channels[:-1]]
        self.blocks = nn.ModuleList(
            nn.Sequential(*_block(before, after))
            for before, after in zip(inputs, block_channels, strict=True)
        )
        up_channels = [block_channels[-1], *(factor * width for factor in _DECODER), width // 2]
        self.deconvs = nn.ModuleList(
            nn.ConvTranspose2d(before, after, kernel_size=3, stride=2, padding=1)
            for before, after in pairwise(up_channels)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for channels in up_channels[1:])
        self.classifier = nn.Conv2d(width // 2, num_classes, kernel_size=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(cast("torch.Tensor", module.bias))

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Score every class at every pixel.

        Args:
            images_NCHW: Normalised images, floating point.

        Returns:
            Score maps of shape (N, num_classes, H, W), at the size of the input.
        """
        levels = [images_NCHW]
        for block in self.blocks:
            levels.append(block(levels[-1]))
        features = levels.pop()
        for deconv, norm in zip(self.deconvs, self.norms, strict=True):
            level = levels.pop()
            features = norm(torch.relu(deconv(features, output_size=level.shape[-2:])))
            # The last level is the image itself, which is no pool.
            features = features + level if levels else features
        scores: torch.Tensor = self.classifier(features)
        return scores


def _block(in_channels: int, out_channels: int) -> Iterator[nn.Module]:
    yield nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
    yield nn.ReLU(inplace=True)
    yield nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1)
    yield nn.ReLU(inplace=True)
    yield nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True)
