"""The families of networks and the list of their names."""

import pkgutil
from collections.abc import Callable
from functools import partial

from fcn.architectures import ARCHITECTURES, FULL_WIDTH, check_choices
from fcn.models.all_skips import FCNAllSkips
from fcn.models.lite import LitePyramid
from fcn.models.network import Network
from fcn.models.paper.alexnet import ONE_TOWER, FCNAlexNet
from fcn.models.residual import ResidualPyramid
from fcn.models.vgg16 import FCNVGG16, VGG16_BLOCKS

__all__ = ["NETWORKS", "Network", "build"]

_AT_ONCE_SCALES = (0.01, 0.0001)


def _on_torchvision(where: str, *args: int, **choices: object) -> Network:
    """Build a network whose layers are torchvision's.

    It is imported here: torchvision takes 1.4 s and 160 MB, which other networks need not pay.
    """
    network: Network = pkgutil.resolve_name(where)(*args, **choices)
    return network


_RESNET = "fcn.models.resnet:FCNResNet"

NETWORKS: dict[str, Callable[..., Network]] = {
    "fcn32s_vgg16": FCNVGG16,
    "fcn16s_vgg16": partial(FCNVGG16, skips=(4,)),
    "fcn8s_vgg16": partial(FCNVGG16, skips=(4, 3)),
    "fcn8s_vgg16_at_once": partial(FCNVGG16, skips=(4, 3), skip_scales=_AT_ONCE_SCALES),
    "fcn32s_alexnet": FCNAlexNet,
    "fcn32s_alexnet_owt": partial(FCNAlexNet, layers=ONE_TOWER),
    "fcn32s_googlenet": partial(_on_torchvision, "fcn.models.paper.googlenet:FCNGoogLeNet"),
    "fcn_all_skips": FCNAllSkips,
    "fcn_all_skips_vgg16": partial(FCNAllSkips, blocks=VGG16_BLOCKS),
    "fcn_pyramid": ResidualPyramid,
    "fcn_lite0": LitePyramid,
    "fcn_resnet50": partial(_on_torchvision, _RESNET, depth=50),
    "fcn_resnet101": partial(_on_torchvision, _RESNET, depth=101),
}


def build(  # noqa: PLR0913 - keyword-only, one per choice that a checkpoint records
    name: str,
    num_classes: int,
    *,
    width: int = FULL_WIDTH,
    in_channels: int = 3,
    padding: str = "paper",
    upsampling: str = "fixed",
) -> Network:
    """Build a network by name, untrained.

    Args:
        name: One of `NETWORKS`.
        num_classes: Score maps, background included.
        width: Channels of the first block, for the networks that scale.
        in_channels: Channels of the input.
        padding: `paper` or `tight`, for the paper's networks.
        upsampling: `fixed` or `learned`, for the paper's networks.

    Raises:
        ValueError: There is no network of this name, or it has no such choice.
    """
    check_choices(name, width, padding, upsampling)
    choices = {"width": width, "padding": padding, "upsampling": upsampling}
    applicable = {field: choices[field] for field in ARCHITECTURES[name]}
    return NETWORKS[name](num_classes, in_channels=in_channels, **applicable)
