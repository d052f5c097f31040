"""The auxiliary head: scores from the middle of an encoder, which only training asks for.

As torchvision trains its FCN-ResNets (references/segmentation/train.py): a head of its own on the
features of stride 16 or 8, whose loss is added with a weight, and which learns ten times as fast.
It gives the layers before it a gradient that is not led through all that follows; Zhao et al.,
"Pyramid Scene Parsing Network" (CVPR 2017), section 3.3.
"""

import torch
from torch import nn

from fcn.models import Network

# Factor of the learning rate.
RATE = 10.0
_DROPPED = 0.1


class WithAuxiliary(nn.Module):
    """A network and an auxiliary head beside it; the network itself stays as it is."""

    def __init__(self, network: Network, place: str, num_classes: int) -> None:
        """Build the head, untrained, with PyTorch's initialisation.

        Args:
            network: What is trained.
            place: Name of its submodule whose features the head looks at.
            num_classes: Score maps, background included.
        """
        super().__init__()
        self.network = network
        self._place = network.get_submodule(place)
        self.head = _head(_channels(self._place), num_classes)

    def forward(self, images_NCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Score images twice.

        Args:
            images_NCHW: As the network takes them.

        Returns:
            The network's score maps, and the head's at the size of its features.
        """
        taken: list[torch.Tensor] = []
        with self._place.register_forward_hook(lambda _module, _given, found: taken.append(found)):
            scores = self.network(images_NCHW)
        return scores, self.head(taken[0])


def _channels(module: nn.Module) -> int:
    """Count the channels of a module's features: those of its last convolution."""
    convolutions = [one for one in module.modules() if isinstance(one, nn.Conv2d)]
    return convolutions[-1].out_channels


def _head(channels: int, num_classes: int) -> nn.Sequential:
    """Build torchvision's `FCNHead`."""
    between = max(1, channels // 4)
    return nn.Sequential(
        nn.Conv2d(channels, between, 3, padding=1, bias=False),
        nn.BatchNorm2d(between),
        nn.ReLU(inplace=True),
        nn.Dropout(_DROPPED),
        nn.Conv2d(between, num_classes, 1),
    )
