"""The paper's networks on VGG16: FCN-32s, FCN-16s, FCN-8s and FCN-8s at once.

Layer by layer as in the published definitions (voc-fcn32s, voc-fcn16s, voc-fcn8s,
voc-fcn8s-atonce), with their layers' names, which are also those of the published PyTorch ports.
"""

import torch
from torch import nn

from fcn.geometry import Geometry
from fcn.interpolation import Window
from fcn.models.layers import conv_relu, pool_2x2
from fcn.models.network import Network, init_he, planar, score_layer
from fcn.upsample import make_upsample

# Channels of the five blocks as multiples of the width, and their numbers of 3x3 convolutions.
VGG16_BLOCKS = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
_FC_CHANNELS = 64  # times the width
_DROPOUT = 0.5
# conv1_1 and fc6. With 100 pixels around the image fc6, which is not padded, has enough to look at
# for every image from 1 x 1 up. Padding both as much as keeps their size does the same without
# computing the frame; the features of the border then see zeros instead of convolved zeros.
_PADDINGS = {"paper": (100, 0), "tight": (1, 3)}


class FCNVGG16(Network):
    """VGG16 whose classifier is a convolution, with skips from the pools of finer strides."""

    def __init__(  # noqa: PLR0913 - keyword-only, one per choice of the paper
        self,
        num_classes: int,
        *,
        skips: tuple[int, ...] = (),
        skip_scales: tuple[float, ...] = (1.0, 1.0),
        width: int = 64,
        in_channels: int = 3,
        padding: str = "paper",
        upsampling: str = "fixed",
    ) -> None:
        """Build the network, untrained: He's initialisation, scores of zero.

        Args:
            num_classes: Score maps, background included.
            skips: Blocks whose pools are scored and added, from the deepest: () is FCN-32s,
                (4,) FCN-16s, (4, 3) FCN-8s.
            skip_scales: What those pools are multiplied with before they are scored; at once
                0.01 and 0.0001, so that all streams start at one scale.
            width: Channels of the first block; 64 is the original.
            in_channels: Channels of the input.
            padding: `paper` or `tight`.
            upsampling: `fixed` or `learned`.
        """
        super().__init__()
        self._skips = tuple(zip(skips, skip_scales, strict=False))
        pad_conv1_1, pad_fc6 = _PADDINGS[padding]
        self._blocks = _add_trunk(self, in_channels, width, pad_conv1_1)
        self.fc6 = nn.Conv2d(8 * width, _FC_CHANNELS * width, kernel_size=7, padding=pad_fc6)
        self.fc7 = nn.Conv2d(_FC_CHANNELS * width, _FC_CHANNELS * width, kernel_size=1)
        self.dropout = nn.Dropout(_DROPOUT)
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True)
        init_he(self)
        self.score_fr = score_layer(_FC_CHANNELS * width, num_classes)
        for level in skips:
            channels = VGG16_BLOCKS[level - 1][0] * width
            self.add_module(f"score_pool{level}", score_layer(channels, num_classes))
        self._ups = self._add_ups(num_classes, upsampling)
        self._align()

    def score(self, images_NCHW: torch.Tensor, window: Window | None) -> torch.Tensor:  # noqa: ARG002 - every part is scored alike
        """Score images; see `Network.forward`."""
        pools = self._pools(images_NCHW)
        features = self.dropout(conv_relu(self.fc6, pools[5]))
        features = self.dropout(conv_relu(self.fc7, features))
        # Scores are added and interpolated in full precision, whatever the layers below have.
        scores: torch.Tensor = planar(self.score_fr(features).float())
        for (level, scale), up, first in zip(self._skips, self._ups, self._firsts, strict=False):
            skip = self.get_submodule(f"score_pool{level}")(pools[level] * scale).float()
            scores = _fuse(scores, skip, up, first)
        size = (images_NCHW.shape[-2], images_NCHW.shape[-1])
        upsampled: torch.Tensor = self._ups[-1](scores, self._firsts[-1], size)
        return upsampled

    def _pools(self, images_NCHW: torch.Tensor) -> dict[int, torch.Tensor]:
        pools = {}
        features = images_NCHW
        for level, block in enumerate(self._blocks, start=1):
            for conv in block:
                features = conv_relu(conv, features)
            features = pools[level] = pool_2x2(self.pool, features)
        return pools

    def _add_ups(self, num_classes: int, mode: str) -> list[nn.Module]:
        last = 32 >> len(self._skips)
        names = ["upscore2", "upscore_pool4"][: len(self._skips)]
        factors = [(name, 2) for name in names]
        factors.append((f"upscore{last}" if self._skips else "upscore", last))
        ups = []
        for name, factor in factors:
            ups.append(make_upsample(mode, num_classes, 2 * factor, factor))
            self.add_module(name, ups[-1])
        return ups

    def _align(self) -> None:
        """Compute where skips and scores meet and where the image begins in the last scores.

        In `paper` padding these are the published crops: pool4 at 5, pool3 at 9, and the scores
        at 19 (FCN-32s), 27 (FCN-16s) or 31 (FCN-8s). Negative ones crop the scores instead.
        """
        layers = [[*block, self.pool] for block in self._blocks]
        down = [layer for block in layers for layer in block] + [self.fc6, self.fc7]
        at = Geometry().then(down)
        self._firsts = []
        for (level, _), up in zip(self._skips, self._ups, strict=False):
            pool = Geometry().then(layer for block in layers[:level] for layer in block)
            at = at.then([up])
            self._firsts.append(pool.first_at(at))
            at = at.cropped(max(0, -self._firsts[-1]))
        at = at.then([self._ups[-1]])
        self._firsts.append(at.first_at(Geometry()))
        self.describe(down, at.cropped(self._firsts[-1]))

    @property
    def crops(self) -> tuple[int, ...]:
        """Where the skips, from the deepest, and at last the scores are cropped."""
        return tuple(self._firsts)


def _add_trunk(
    network: nn.Module, in_channels: int, width: int, padding: int
) -> list[list[nn.Conv2d]]:
    blocks: list[list[nn.Conv2d]] = []
    for level, (factor, number) in enumerate(VGG16_BLOCKS, start=1):
        blocks.append([])
        for index in range(1, number + 1):
            first = level == index == 1
            conv = nn.Conv2d(in_channels, factor * width, 3, padding=padding if first else 1)
            network.add_module(f"conv{level}_{index}", conv)
            blocks[-1].append(conv)
            in_channels = factor * width
    return blocks


def _fuse(scores: torch.Tensor, skip: torch.Tensor, up: nn.Module, first: int) -> torch.Tensor:
    """Upsample scores by 2 and add a skip, where both are."""
    begin, crop = max(0, first), max(0, -first)
    height, width = (
        min(finer - begin, 2 * coarser + 2 - crop)
        for finer, coarser in zip(skip.shape[-2:], scores.shape[-2:], strict=True)
    )
    upsampled: torch.Tensor = up(scores, crop, (height, width))
    return upsampled + skip[..., begin : begin + height, begin : begin + width]
