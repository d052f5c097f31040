"""FCN-GoogLeNet on torchvision's trunk."""

from functools import cache

import pytest
import torch
from torchvision.models import googlenet

from fcn.models import Network, build
from tests.fcn.references import assert_scores_equal, draw_images, fcn_googlenet, make_drawn


@cache
def _drawn(in_channels: int = 3) -> Network:
    return make_drawn(lambda: build("fcn32s_googlenet", 3, in_channels=in_channels))


_SIZES = [
    (3, 1, 1),
    (2, 1, 90),
    (2, 14, 15),
    (2, 15, 16),
    (1, 31, 33),
    (1, 46, 47),
    (2, 64, 96),
    (1, 127, 129),
    (1, 301, 199),
]


@pytest.mark.parametrize("shape", _SIZES)
@torch.no_grad()
def test_it_is_torchvisions_trunk_under_scores(shape: tuple[int, int, int]) -> None:
    """It scores as torchvision's layers, a dense transposed convolution and a crop of 9 do."""
    network = _drawn()
    batch, height, width = shape
    images = draw_images(batch, 3, height, width)
    assert_scores_equal(network(images), fcn_googlenet(network.state_dict(), images))


@torch.no_grad()
def test_the_reference_would_notice() -> None:
    """A crop a pixel aside is far outside of what is tolerated."""
    scores = _drawn()(draw_images(1, 3, 127, 129))
    tolerated = 1e-4 * scores.abs().max()
    assert (scores[..., 1:, :] - scores[..., :-1, :]).abs().max() > 10 * tolerated
    assert (scores[..., 1:] - scores[..., :-1]).abs().max() > 10 * tolerated


def test_its_geometry_is_that_of_its_layers() -> None:
    """It looks at 379 pixels at stride 32, the scores are cropped at 9 and lie on the pixels."""
    with torch.device("meta"):
        network = build("fcn32s_googlenet", 21)
    assert (network.crop, network.receptive_field, network.stride) == (9, 379, 32)
    assert (network.geometry.stride, network.geometry.centre) == (1, 0)


def test_below_its_smallest_size_the_pools_leave_nothing() -> None:
    """The size up to which images are padded is the smallest that torchvision's layers take."""
    smallest = _drawn().smallest
    assert smallest == 15
    layers = _drawn()._layers()

    def features(size: int) -> torch.Tensor:
        x = torch.zeros(1, 3, size, size)
        for layer in layers:
            x = layer(x)
        return x

    with torch.no_grad():
        assert features(smallest).shape[-2:] == (1, 1)
        with pytest.raises(RuntimeError, match="size"):
            features(smallest - 1)


def test_it_has_the_parameters_of_torchvisions() -> None:
    """Its number of parameters is that of torchvision's classifier with as many classes."""
    with torch.device("meta"):
        ours = build("fcn32s_googlenet", 21)
        theirs = googlenet(num_classes=21, aux_logits=False, init_weights=False)
    numbers = [sum(p.numel() for p in network.parameters()) for network in (ours, theirs)]
    assert numbers[0] == numbers[1]


@torch.no_grad()
def test_learned_upsampling_starts_as_the_fixed() -> None:
    """With learned upsampling that learned nothing yet the scores are those of the fixed."""
    learned = build("fcn32s_googlenet", 3, upsampling="learned").eval()
    missing, surplus = learned.load_state_dict(_drawn().state_dict(), strict=False)
    assert (missing, surplus) == (["upscore.weight"], [])
    images = draw_images(1, 3, 71, 10)
    assert_scores_equal(learned(images), _drawn()(images))


@torch.no_grad()
def test_images_may_have_other_channels() -> None:
    """The number of channels of the input is an argument."""
    assert _drawn(1)(draw_images(1, 1, 8, 39)).shape == (1, 3, 8, 39)
