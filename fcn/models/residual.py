"""`fcn_pyramid`: a pyramid on residual blocks, to train from scratch.

He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), section 3.3: the basic block,
and an encoder whose channels double where its stride does; to a quarter of the channels, and on to
stride 64.
"""

import torch
from torch import nn

from fcn.models.network import init_he
from fcn.models.pyramid import ConvNorm, Encoder, FCNPyramid

# Channels of the levels of stride 2 to 64 as multiples of the width, and their residual blocks.
_LEVELS = ((1, 0), (1, 2), (2, 2), (4, 2), (4, 2), (4, 1))


class ResidualPyramid(FCNPyramid):
    """`fcn_pyramid`."""

    def __init__(self, num_classes: int, *, width: int = 64, in_channels: int = 3) -> None:
        """Build the network, untrained, with He's initialisation.

        Args:
            num_classes: Score maps, background included.
            width: Channels of the levels of stride 2 and 4, an even number, and of the decoder.
            in_channels: Channels of the input.
        """
        super().__init__(_Residual(width, in_channels), num_classes, channels=width)
        init_he(self)


class _Residual(Encoder):
    def __init__(self, width: int, in_channels: int) -> None:
        super().__init__()
        self.channels = tuple(factor * width for factor, _ in _LEVELS)
        self.levels = nn.ModuleList()
        for channels, (_, number) in zip(self.channels, _LEVELS, strict=True):
            blocks: list[nn.Module] = [_Block(channels, channels) for _ in range(number - 1)]
            self.levels.append(nn.Sequential(_first(in_channels, channels, number), *blocks))
            in_channels = channels


def _first(before: int, channels: int, num_blocks: int) -> nn.Module:
    if num_blocks:
        return _Block(before, channels, stride=2)
    # The stem, at the cost of one convolution at stride 1.
    layers = [_conv(before, channels, 2, nn.ReLU()), _conv(channels, channels, 1, nn.ReLU())]
    return nn.Sequential(*layers)


class _Block(nn.Module):
    """Two convolutions, and a shortcut around them."""

    def __init__(self, before: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(before, channels, stride, nn.ReLU()), _conv(channels, channels, 1, None)
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or before != channels:
            self.shortcut = ConvNorm(nn.Conv2d(before, channels, 1, bias=False))
        self._stride = stride

    def forward(self, features_NCHW: torch.Tensor) -> torch.Tensor:
        # As a strided convolution has it; of that, oneDNN's gradient on AVX2 ends the process.
        taken = features_NCHW[..., :: self._stride, :: self._stride]
        features: torch.Tensor = self.body(features_NCHW) + self.shortcut(taken)
        return torch.relu(features)


def _conv(before: int, channels: int, stride: int, activation: nn.Module | None) -> ConvNorm:
    return ConvNorm(nn.Conv2d(before, channels, 3, stride, 1, bias=False), activation)
