"""The paper's FCN-GoogLeNet (FCN-32s) on torchvision's GoogLeNet, without its average pool.

The paper trained its own GoogLeNet and never released it. This one takes the weights that people
have: torchvision's, which has batch norm, a last pool of 2 x 2, and 3 x 3 convolutions where the
original has 5 x 5. Its receptive field is 379 pixels; the paper's 907 counts 5 x 5 convolutions and
the average pool that the network then drops (715 without it).
"""

from typing import cast

import torch
from torch import nn
from torchvision.models import googlenet
from torchvision.models.googlenet import Inception

from fcn.geometry import Geometry
from fcn.interpolation import Window
from fcn.models.network import Network, score_layer
from fcn.upsample import make_upsample

_CHANNELS = 1024
# An odd kernel: the centres of the last features lie on pixels, not between them.
_UP_KERNEL, _UP_STRIDE = 63, 32


class FCNGoogLeNet(Network):
    """GoogLeNet whose classifier is a convolution, upsampled from stride 32 in one step.

    All its convolutions keep their size, so that there is one padding only.
    """

    def __init__(
        self, num_classes: int, *, in_channels: int = 3, upsampling: str = "fixed"
    ) -> None:
        """Build the network, untrained; scores of zero.

        Args:
            num_classes: Score maps, background included.
            in_channels: Channels of the input.
            upsampling: `fixed` or `learned`.
        """
        super().__init__()
        self.trunk = googlenet(
            weights=None, aux_logits=False, transform_input=False, init_weights=False
        )
        self.dropout = cast("nn.Module", self.trunk.dropout)
        for name in ("avgpool", "fc", "dropout"):
            setattr(self.trunk, name, nn.Identity())
        if in_channels != 3:
            self.trunk.conv1.conv = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.score_fr = score_layer(_CHANNELS, num_classes)
        self.upscore = make_upsample(upsampling, num_classes, _UP_KERNEL, _UP_STRIDE)
        self._align()

    def score(self, images_NCHW: torch.Tensor, window: Window | None) -> torch.Tensor:  # noqa: ARG002 - every part is scored alike
        """Score images; see `Network.forward`."""
        features = images_NCHW
        for layer in self._layers():
            features = layer(features)
        size = (images_NCHW.shape[-2], images_NCHW.shape[-1])
        scores = self.score_fr(self.dropout(features)).float()
        upsampled: torch.Tensor = self.upscore(scores, self.crop, size)
        return upsampled

    def _layers(self) -> list[nn.Module]:
        children = self.trunk.named_children()
        return [layer for name, layer in children if name.startswith(("conv", "maxpool", "incep"))]

    def _align(self) -> None:
        """Compute where the image begins in the scores."""
        down: list[nn.Module] = []
        for layer in self._layers():
            # The branches of an inception are aligned; this one has its widest kernel.
            deepest = layer.branch2 if isinstance(layer, Inception) else layer
            down += deepest.modules()
        scores = Geometry().then([*down, self.upscore])
        self.crop = scores.first_at(Geometry())
        self.describe(down, scores.cropped(self.crop))
