"""FCN-AlexNet, on CaffeNet as published and on the one tower that torchvision has."""

from functools import cache
from unittest import mock

import pytest
import torch
from torchvision import models

from fcn.models import Network, build
from fcn.models.paper import alexnet
from tests.fcn.references import assert_scores_equal, draw_images, fcn_alexnet, make_drawn

_GROUPS = {"fcn32s_alexnet": 2, "fcn32s_alexnet_owt": 1}
_SIZES = [(3, 1, 1), (1, 1, 300), (2, 28, 29), (1, 33, 31), (1, 161, 227), (1, 375, 203)]
# Of the size of pictures minus their mean: among smaller numbers normalisation does nothing.
_SCALE = 50


@cache
def _drawn(name: str, padding: str) -> Network:
    """Draw all weights; fc6 and fc7 have fewer channels than 4096, which take 20 times as long."""
    with mock.patch.object(alexnet, "_FC_CHANNELS", 64):
        return make_drawn(lambda: build(name, 3, padding=padding))


@pytest.mark.parametrize("shape", _SIZES)
@pytest.mark.parametrize("padding", ["paper", "tight"])
@pytest.mark.parametrize("name", _GROUPS)
@torch.no_grad()
def test_it_is_the_published_network(name: str, padding: str, shape: tuple[int, int, int]) -> None:
    """With the same weights it scores as the plain reference does, at every size."""
    network = _drawn(name, padding)
    batch, height, width = shape
    images = draw_images(batch, 3, height, width, scale=_SCALE)
    choices = {"groups": _GROUPS[name], "tight": padding == "tight"}
    assert_scores_equal(network(images), fcn_alexnet(network.state_dict(), images, **choices))


@torch.no_grad()
def test_it_is_the_published_network_at_full_width() -> None:
    """With 4096 channels in fc6 and fc7 it scores as the plain reference does."""
    network = make_drawn(lambda: build("fcn32s_alexnet", 3))
    images = draw_images(1, 3, 50, 41, scale=_SCALE)
    assert_scores_equal(network(images), fcn_alexnet(network.state_dict(), images))


@torch.no_grad()
def test_the_reference_would_notice() -> None:
    """No normalisation or a crop a pixel aside is far outside of what is tolerated."""
    network = _drawn("fcn32s_alexnet", "paper")
    images = draw_images(1, 3, 99, 101, scale=_SCALE)
    scores = network(images)
    tolerated = 1e-4 * scores.abs().max()
    assert (scores[..., 1:, :] - scores[..., :-1, :]).abs().max() > 20 * tolerated
    assert (scores[..., 1:] - scores[..., :-1]).abs().max() > 20 * tolerated
    norm, network.norm = network.norm, torch.nn.Identity()
    try:
        assert (network(images) - scores).abs().max() > 1000 * tolerated
    finally:
        network.norm = norm


@pytest.mark.parametrize("name", _GROUPS)
@pytest.mark.parametrize(("padding", "crop"), [("paper", 18), ("tight", 19)])
def test_its_geometry_is_as_published(name: str, padding: str, crop: int) -> None:
    """Computed from the layers, the crop is 18 and the receptive field 355 pixels at stride 32."""
    with torch.device("meta"):
        network = build(name, 21, padding=padding)
    assert (network.crop, network.receptive_field, network.stride) == (crop, 355, 32)
    assert (network.geometry.stride, network.geometry.centre) == (1, 0)
    assert network.smallest == (1 if padding == "paper" else 29)


def test_it_has_the_parameters_of_torchvisions() -> None:
    """The one tower has torchvision's layers; the published network has 57 million parameters."""
    with torch.device("meta"):
        theirs = models.alexnet(num_classes=21)
        one_tower, published = (build(name, 21) for name in reversed(_GROUPS))
    numbers = [
        sum(parameter.numel() for parameter in network.parameters())
        for network in (one_tower, theirs, published)
    ]
    assert numbers[0] == numbers[1]
    assert round(numbers[2], -6) == 57_000_000


@pytest.mark.parametrize("padding", ["paper", "tight"])
@torch.no_grad()
def test_learned_upsampling_starts_as_the_fixed(padding: str) -> None:
    """With learned upsampling that learned nothing yet the scores are those of the fixed."""
    fixed = _drawn("fcn32s_alexnet", padding)
    with mock.patch.object(alexnet, "_FC_CHANNELS", 64):
        learned = build("fcn32s_alexnet", 3, padding=padding, upsampling="learned").eval()
    missing, surplus = learned.load_state_dict(fixed.state_dict(), strict=False)
    assert (missing, surplus) == (["upscore.weight"], [])
    images = draw_images(1, 3, 71, 40, scale=_SCALE)
    assert_scores_equal(learned(images), fixed(images))
