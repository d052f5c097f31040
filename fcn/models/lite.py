"""`fcn_lite0`: a pyramid on EfficientNet-Lite0, whose ImageNet weights come with a package.

Tan, Le, "EfficientNet" (ICML 2019), table 1, and its Lite variant (tensorflow/tpu,
models/official/efficientnet/lite): no squeeze-and-excitation, which would look at the whole
picture, ReLU6 in place of swish, and a stem of a fixed width. What it classifies with is left out.

TensorFlow pads strided convolutions at the bottom and the right only, where heights and widths
are even. Here that is so at every size, so that a part of a picture is seen as the whole is.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from fcn.models.network import init_he
from fcn.models.pyramid import ConvNorm, Encoder, FCNPyramid, context

# Of each level of stride 2 to 32, its stages: blocks, kernel, expansion, channels. The first
# block of a level has stride 2, but at stride 2, where the stem has it.
LITE0_LEVELS: tuple[tuple[tuple[int, int, int, int], ...], ...] = (
    ((1, 3, 1, 16),),
    ((2, 3, 6, 24),),
    ((2, 5, 6, 40),),
    ((3, 3, 6, 80), (3, 5, 6, 112)),
    ((4, 5, 6, 192), (1, 3, 6, 320)),
)
_STEM = 32
_CONTEXT = 128
_DECODER = 64
# The published batch norms; TensorFlow's decay of 0.99 is a momentum of 0.01.
_NORM = {"eps": 1e-3, "momentum": 0.01}


class LitePyramid(FCNPyramid):
    """`fcn_lite0`."""

    def __init__(self, num_classes: int, *, in_channels: int = 3) -> None:
        """Build the network, untrained, with He's initialisation.

        Args:
            num_classes: Score maps, background included.
            in_channels: Channels of the input.
        """
        super().__init__(_Lite0(in_channels), num_classes, channels=_DECODER)
        init_he(self)


class _Lite0(Encoder):
    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.channels = (*(stages[-1][3] for stages in LITE0_LEVELS), _CONTEXT)
        self.levels = nn.ModuleList()
        before = _STEM
        for index, stages in enumerate(LITE0_LEVELS):
            blocks: list[nn.Module] = (
                [] if index else [_norm(_SameConv2d(in_channels, _STEM, 3, stride=2))]
            )
            for place, (number, kernel_size, expansion, channels) in enumerate(stages):
                strides = [2 if index and not place else 1, *[1] * (number - 1)]
                widths = pairwise([before, *[channels] * number])
                blocks += [
                    _Block(given, wanted, kernel_size, stride, expansion)
                    for (given, wanted), stride in zip(widths, strides, strict=True)
                ]
                before = channels
            self.levels.append(nn.Sequential(*blocks))
        self.levels.append(context(before, _CONTEXT, nn.ReLU6(inplace=True)))


class _Block(nn.Module):
    """An inverted residual: channels widened, neighbours mixed channel by channel, narrowed."""

    def __init__(
        self, before: int, channels: int, kernel_size: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        wide = before * expansion
        layers = [_norm(nn.Conv2d(before, wide, 1, bias=False))] if expansion > 1 else []
        layers += [
            _norm(_SameConv2d(wide, wide, kernel_size, stride=stride, groups=wide)),
            ConvNorm(nn.Conv2d(wide, channels, 1, bias=False), None, **_NORM),
        ]
        self.body = nn.Sequential(*layers)
        self._is_residual = stride == 1 and before == channels

    def forward(self, features_NCHW: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.body(features_NCHW)
        return features + features_NCHW if self._is_residual else features


class _SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow pads even sizes: what is left over comes last."""

    def __init__(
        self, before: int, channels: int, kernel_size: int, *, stride: int, groups: int = 1
    ) -> None:
        first = (kernel_size - stride) // 2
        super().__init__(
            before, channels, kernel_size, stride, padding=first, groups=groups, bias=False
        )
        self.trailing = kernel_size - 1 - 2 * first

    def forward(self, features_NCHW: torch.Tensor) -> torch.Tensor:
        return super().forward(F.pad(features_NCHW, (0, self.trailing, 0, self.trailing)))


def _norm(conv: nn.Conv2d) -> ConvNorm:
    return ConvNorm(conv, nn.ReLU6(inplace=True), **_NORM)
