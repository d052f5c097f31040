"""The families of networks and the list of their names."""

from torch import nn

from fcn.models.all_skips import FCNAllSkips

__all__ = ["NETWORKS", "FCNAllSkips", "build"]

NETWORKS = {"fcn_all_skips": FCNAllSkips}


def build(name: str, num_classes: int, *, width: int = 64, in_channels: int = 3) -> nn.Module:
    """Build a network by name, untrained.

    Args:
        name: One of `NETWORKS`.
        num_classes: Score maps, background included.
        width: Channels of the first block.
        in_channels: Channels of the input.

    Raises:
        ValueError: There is no network of this name.
    """
    if name not in NETWORKS:
        raise ValueError(f"network={name!r} is unknown; there are: {', '.join(NETWORKS)}")
    return NETWORKS[name](num_classes, width=width, in_channels=in_channels)
