"""What all networks have in common, for whoever runs them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from fcn.geometry import Geometry, smallest_input
from fcn.interpolation import Window


class Network(nn.Module):
    """A fully convolutional network: normalised images in, score maps of the same size out.

    Attributes:
        geometry: The geometry of the whole chain, from the image to its score maps.
        receptive_field: Pixels in a row that one output of the coarsest layer looks at.
        stride: Pixels per step of the coarsest layer: parts of a picture that begin at multiples
            of it get the scores that the whole gets.
        smallest: Height and width up to which smaller images are padded with zeros.
    """

    geometry: Geometry
    receptive_field: int
    stride: int
    smallest: int

    @property
    def margin(self) -> int:
        """Pixels around a part of a picture that decide its scores: a multiple of the stride."""
        return -(-self.geometry.reach // self.stride) * self.stride

    def forward(self, images_NCHW: torch.Tensor, window: Window | None = None) -> torch.Tensor:
        """Score every class at every pixel.

        Args:
            images_NCHW: Normalised images, floating point, of any height and width from 1 up.
            window: Where they lie, if they are parts of a larger picture.

        Returns:
            Score maps of shape (N, num_classes, H, W), at the size of the input.
        """
        height, width = images_NCHW.shape[-2:]
        missing = (max(0, self.smallest - width), max(0, self.smallest - height))
        if any(missing):
            images_NCHW = F.pad(images_NCHW, (0, missing[0], 0, missing[1]))
        return self.score(images_NCHW, window)[..., :height, :width]

    def score(self, images_NCHW: torch.Tensor, window: Window | None) -> torch.Tensor:
        """Do the work of `forward` on images that are large enough."""
        raise NotImplementedError

    def fold(self) -> None:
        """Put into other layers what only training needs apart; scores stay but for rounding."""

    def describe(self, down: Sequence[nn.Module], geometry: Geometry) -> None:
        """Set the attributes.

        Args:
            down: The deepest path from the image to the coarsest layer, in order.
            geometry: The geometry of the whole chain.
        """
        coarsest = Geometry().then(down)
        self.stride = int(coarsest.stride)
        self.receptive_field = int(coarsest.receptive_field)
        self.smallest = smallest_input(down)
        self.geometry = geometry


def init_he(network: nn.Module) -> None:
    """Draw all convolutions as in He et al. 2015, section 2.2; biases are zero.

    It keeps the signal's scale from layer to layer; PyTorch's default lets it fade over so many
    layers without batch norm.
    """
    for module in network.modules():
        # To draw on the meta device, torch imports its compiler, for no values at all.
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and not module.weight.is_meta:
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def planar(scores_NCHW: torch.Tensor) -> torch.Tensor:
    """Lay score maps out plane by plane on a GPU, which interpolates and reads them faster so."""
    return scores_NCHW.contiguous() if scores_NCHW.is_cuda else scores_NCHW


def score_layer(in_channels: int, num_classes: int) -> nn.Conv2d:
    """Make a 1x1 convolution to score maps that starts at zero.

    The paper found that random values gave neither better nor faster results (section 4.3), and
    a new skip then leaves the scores below it as they are.
    """
    layer = nn.Conv2d(in_channels, num_classes, kernel_size=1)
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None, "Conv2d has one by default"
    nn.init.zeros_(layer.bias)
    return layer
