"""FCN-ResNet-50 and 101 against torchvision's own."""

from functools import cache

import pytest
import torch
from torch import nn
from torchvision.models.segmentation import fcn_resnet50, fcn_resnet101

from fcn.interpolation import Window
from fcn.models import Network, build
from tests.fcn.references import assert_scores_equal, draw_images, make_drawn

_THEIRS = {"fcn_resnet50": fcn_resnet50, "fcn_resnet101": fcn_resnet101}
_PUBLISHED = {"fcn_resnet50": 35_322_218, "fcn_resnet101": 54_314_346}


def _build_theirs(name: str, num_classes: int, *, auxiliary: bool = False) -> nn.Module:
    choices = {"weights": None, "weights_backbone": None, "aux_loss": auxiliary}
    return _THEIRS[name](num_classes=num_classes, **choices)


@cache
def _both(name: str) -> tuple[Network, nn.Module]:
    theirs = make_drawn(lambda: _build_theirs(name, 3))
    with torch.device("meta"):
        network = build(name, 3).eval()
    network.load_state_dict(theirs.state_dict(), assign=True)
    return network, theirs


_SIZES = [(1, 1, 1), (2, 1, 50), (3, 7, 8), (2, 31, 33), (1, 64, 97), (1, 131, 75)]


@pytest.mark.parametrize(
    ("name", "shape"),
    [*(("fcn_resnet50", shape) for shape in _SIZES), ("fcn_resnet101", (1, 37, 29))],
)
@torch.no_grad()
def test_it_is_torchvisions(name: str, shape: tuple[int, int, int]) -> None:
    """With torchvision's state dict, whose names are its own, it gives torchvision's scores."""
    network, theirs = _both(name)
    batch, height, width = shape
    images = draw_images(batch, 3, height, width)
    expected = theirs(images)["out"]
    assert_scores_equal(network(images), expected)
    # Given as a part that is the whole, the scores are interpolated otherwise, to the same.
    whole = Window(first=(0, 0), picture=(height, width))
    assert_scores_equal(network(images, whole), expected)


@pytest.mark.parametrize("name", _THEIRS)
def test_it_has_the_parameters_of_torchvisions(name: str) -> None:
    """It has torchvision's number of parameters without the auxiliary head, as published with."""
    with torch.device("meta"):
        ours = build(name, 21)
        theirs, published = (
            _build_theirs(name, 21, auxiliary=auxiliary) for auxiliary in (False, True)
        )
    numbers = [
        sum(parameter.numel() for parameter in network.parameters())
        for network in (ours, theirs, published)
    ]
    assert numbers[0] == numbers[1]
    assert numbers[2] == _PUBLISHED[name]


@pytest.mark.parametrize(("name", "pixels"), [("fcn_resnet50", 443), ("fcn_resnet101", 987)])
def test_its_geometry_is_that_of_its_layers(name: str, pixels: int) -> None:
    """It looks at 443 or 987 pixels at stride 8 and takes a single pixel."""
    with torch.device("meta"):
        network = build(name, 21)
    assert (network.receptive_field, network.stride, network.smallest) == (pixels, 8, 1)


@torch.no_grad()
def test_images_may_have_other_channels() -> None:
    """The number of channels of the input is an argument."""
    network = build("fcn_resnet50", 2, in_channels=4).eval()
    assert network(draw_images(1, 4, 8, 19)).shape == (1, 2, 8, 19)
