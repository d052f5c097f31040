"""What networks are and cost: figures that are counted, not written down."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fcn.models import Network, build
from fcn.models.pyramid import Upsample2
from fcn.upsample import FixedUpsample, LearnedUpsample

_UPSAMPLING = (FixedUpsample, LearnedUpsample, Upsample2)


@dataclass(frozen=True)
class Cost:
    """Figures of one network.

    Attributes:
        num_parameters: Numbers that training changes.
        multiply_adds: Of all convolutions and transposed convolutions for one image; that
            upsampling which is an interpolation is not among them.
        receptive_field: Pixels in a row that one output of the coarsest layer looks at.
        output_stride: Pixels per step of the finest scores, before they are upsampled to the
            image's size in the last step; 1 where the network computes at that size.
    """

    num_parameters: int
    multiply_adds: int
    receptive_field: int
    output_stride: int


def count(name: str, num_classes: int, size: tuple[int, int], *, padding: str = "paper") -> Cost:
    """Count a network's figures, without memory for its weights and without computing anything.

    Args:
        name: One of `fcn.models.NETWORKS`.
        num_classes: Score maps, background included.
        size: (height, width) of the image in pixels.
        padding: `paper` or `tight`.
    """
    with torch.device("meta"):
        network = build(name, num_classes, padding=padding).eval()
        image = torch.empty(1, 3, *size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return Cost(
        sum(parameter.numel() for parameter in network.parameters()),
        # It counts multiplications and additions one by one.
        counter.get_total_flops() // 2,
        network.receptive_field,
        _output_stride(network),
    )


def _output_stride(network: Network) -> int:
    last = [layer for layer in network.modules() if isinstance(layer, _UPSAMPLING)]
    if last:
        stride = last[-1].stride
        return stride if isinstance(stride, int) else stride[0]
    learned = any(isinstance(layer, nn.ConvTranspose2d) for layer in network.modules())
    return 1 if learned else network.stride
