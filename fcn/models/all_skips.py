"""`fcn_all_skips` and `fcn_all_skips_vgg16`: five blocks down, five transposed convolutions up.

The project's notes have both: the vanilla network, whose blocks are two convolutions each, and the
same decoder on VGG16's blocks. Layers are called as there.

In the tensor names: N batch, C channels, H and W pixels at the stride of the level.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import nn

from fcn.geometry import Geometry
from fcn.interpolation import Window
from fcn.models.layers import ConvReLU, Pool2x2
from fcn.models.network import Network, init_he

# Channels of the five blocks as multiples of the width, and their numbers of 3x3 convolutions.
VANILLA_BLOCKS = ((1, 2), (2, 2), (4, 2), (8, 2), (8, 2))
# Channels behind the first four steps up; the last has half the width.
_DECODER = (8, 4, 2, 1)


class FCNAllSkips(Network):
    """A network that adds the pool of every level to its decoder, for images from 1 x 1 up.

    Each block is 3x3 convolutions with ReLU and a 2x2 max pool; each step up is a 3x3 transposed
    convolution of stride 2, ReLU, then batch norm, summed with the pool of its level.

    The pools round up and each step up ends at the size of the level that it meets. At sizes that
    are multiples of 32 these are the notes' networks exactly; at others theirs do not run.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        blocks: tuple[tuple[int, int], ...] = VANILLA_BLOCKS,
        width: int = 64,
        in_channels: int = 3,
    ) -> None:
        """Build the network, untrained, with He's initialisation.

        Args:
            num_classes: Score maps, background included.
            blocks: `VANILLA_BLOCKS` or `VGG16_BLOCKS`.
            width: Channels of the first block, an even number; 64 is the original.
            in_channels: Channels of the input.
        """
        super().__init__()
        self._blocks: list[nn.Module] = []
        for level, (factor, number) in enumerate(blocks, start=1):
            block = nn.Sequential(*_block(in_channels, factor * width, number))
            in_channels = factor * width
            self._blocks.append(block)
            self.add_module(f"block{level}", block)
        channels = [in_channels, *(factor * width for factor in _DECODER), width // 2]
        deconvs = []
        for level, (before, after) in enumerate(pairwise(channels), start=1):
            deconvs.append(nn.ConvTranspose2d(before, after, kernel_size=3, stride=2, padding=1))
            self.add_module(f"deconv{level}", deconvs[-1])
            self.add_module(f"bn{level}", nn.BatchNorm2d(after))
        self.classifier = nn.Conv2d(width // 2, num_classes, kernel_size=1)
        init_he(self)
        down = [layer for block in self._blocks for layer in block.children()]
        self.describe(down, Geometry().then(down).then(deconvs))

    def score(self, images_NCHW: torch.Tensor, window: Window | None) -> torch.Tensor:  # noqa: ARG002 - every part is scored alike
        """Score images; see `Network.forward`."""
        levels = [images_NCHW]
        for block in self._blocks:
            levels.append(block(levels[-1]))
        features = levels.pop()
        # By name: training across workers puts other batch norms in their places.
        for number in range(1, len(_DECODER) + 2):
            level = levels.pop()
            deconv, norm = getattr(self, f"deconv{number}"), getattr(self, f"bn{number}")
            features = norm(torch.relu(deconv(features, output_size=level.shape[-2:])))
            # The last level is the image itself, which is no pool.
            features = features + level if levels else features
        scores: torch.Tensor = self.classifier(features)
        return scores

    def fold(self) -> None:
        """Put every ReLU of the blocks into the convolution before it, and take the faster pool."""
        for block in self._blocks:
            assert isinstance(block, nn.Sequential), "as they are built"
            for index, layer in enumerate(block):
                if isinstance(layer, nn.Conv2d):
                    block[index], block[index + 1] = ConvReLU(layer), nn.Identity()
                if isinstance(layer, nn.MaxPool2d):
                    block[index] = Pool2x2(layer)


def _block(in_channels: int, out_channels: int, number: int) -> Iterator[nn.Module]:
    for _ in range(number):
        yield nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        yield nn.ReLU(inplace=True)
        in_channels = out_channels
    yield nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True)
