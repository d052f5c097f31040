"""The paper's FCN-AlexNet (FCN-32s), and the same on the AlexNet that torchvision has.

`CAFFENET` is the published one (voc-fcn-alexnet): 96 channels in front, two groups, local
response normalisation after the pools. `ONE_TOWER` is Krizhevsky 2014 ("One weird trick for
parallelizing convolutional neural networks"): 64 channels, no groups, no normalisation.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from fcn.geometry import Geometry
from fcn.interpolation import Window
from fcn.models.layers import conv_relu
from fcn.models.network import Network, init_he, score_layer
from fcn.upsample import make_upsample

_FC_CHANNELS = 4096
_DROPOUT = 0.5
# conv1 and fc6, as for VGG16. The kernel of fc6 is even: padded it gives one output more.
_PADDINGS = {"paper": (100, 0), "tight": (5, 3)}
# An odd kernel: the centres of fc6's outputs lie on pixels, not between them.
_UP_KERNEL, _UP_STRIDE = 63, 32


@dataclass(frozen=True)
class Layers:
    """What the two AlexNets differ in: channels, groups, local response normalisation."""

    channels: tuple[int, int, int, int, int]
    groups: int
    normalised: bool


CAFFENET = Layers((96, 256, 384, 384, 256), groups=2, normalised=True)
ONE_TOWER = Layers((64, 192, 384, 256, 256), groups=1, normalised=False)


class FCNAlexNet(Network):
    """AlexNet whose classifier is a convolution, upsampled from stride 32 in one step."""

    def __init__(
        self,
        num_classes: int,
        *,
        layers: Layers = CAFFENET,
        in_channels: int = 3,
        padding: str = "paper",
        upsampling: str = "fixed",
    ) -> None:
        """Build the network, untrained: He's initialisation, scores of zero.

        Args:
            num_classes: Score maps, background included.
            layers: Which AlexNet.
            in_channels: Channels of the input.
            padding: `paper` or `tight`.
            upsampling: `fixed` or `learned`.
        """
        super().__init__()
        one, two, three, four, five = layers.channels
        pad_conv1, pad_fc6 = _PADDINGS[padding]
        groups = layers.groups
        self.conv1 = nn.Conv2d(in_channels, one, kernel_size=11, stride=4, padding=pad_conv1)
        self.conv2 = nn.Conv2d(one, two, kernel_size=5, padding=2, groups=groups)
        self.conv3 = nn.Conv2d(two, three, kernel_size=3, padding=1)
        self.conv4 = nn.Conv2d(three, four, kernel_size=3, padding=1, groups=groups)
        self.conv5 = nn.Conv2d(four, five, kernel_size=3, padding=1, groups=groups)
        self.fc6 = nn.Conv2d(five, _FC_CHANNELS, kernel_size=6, padding=pad_fc6)
        self.fc7 = nn.Conv2d(_FC_CHANNELS, _FC_CHANNELS, kernel_size=1)
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True)
        self.norm = (
            nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75) if layers.normalised else nn.Identity()
        )
        self.dropout = nn.Dropout(_DROPOUT)
        init_he(self)
        self.score_fr = score_layer(_FC_CHANNELS, num_classes)
        self.upscore = make_upsample(upsampling, num_classes, _UP_KERNEL, _UP_STRIDE)
        self._align()

    def score(self, images_NCHW: torch.Tensor, window: Window | None) -> torch.Tensor:  # noqa: ARG002 - every part is scored alike
        """Score images; see `Network.forward`."""
        features = self._normalised(self.pool(F.relu(self.conv1(images_NCHW), inplace=True)))
        features = self._normalised(self.pool(F.relu(self.conv2(features), inplace=True)))
        features = F.relu(self.conv3(features), inplace=True)
        features = F.relu(self.conv4(features), inplace=True)
        features = self.pool(F.relu(self.conv5(features), inplace=True))
        features = self.dropout(conv_relu(self.fc6, features))
        features = self.dropout(F.relu(self.fc7(features), inplace=True))
        size = (images_NCHW.shape[-2], images_NCHW.shape[-1])
        scores: torch.Tensor = self.upscore(self.score_fr(features).float(), self.crop, size)
        return scores

    def _normalised(self, features_NCHW: torch.Tensor) -> torch.Tensor:
        # It squares, which overflows in fp16.
        normalised: torch.Tensor = self.norm(features_NCHW.float())
        return normalised.to(features_NCHW.dtype)

    def _align(self) -> None:
        """Compute where the image begins in the scores: at 18 in `paper` padding."""
        down = [self.conv1, self.pool, self.conv2, self.pool]
        down += [self.conv3, self.conv4, self.conv5, self.pool, self.fc6, self.fc7]
        scores = Geometry().then([*down, self.upscore])
        self.crop = scores.first_at(Geometry())
        self.describe(down, scores.cropped(self.crop))
