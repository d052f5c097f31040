"""The paper's networks on VGG16, against plain references and the published numbers."""

from functools import cache

import pytest
import torch

from fcn.models import Network, build
from tests.fcn import references
from tests.fcn.references import SIZES, assert_scores_equal, draw_images, make_drawn

_REFERENCES = {
    ("fcn32s_vgg16", "paper"): references.fcn32s,
    ("fcn16s_vgg16", "paper"): references.fcn16s,
    ("fcn8s_vgg16", "paper"): references.fcn8s,
    ("fcn8s_vgg16_at_once", "paper"): references.fcn8s_at_once,
    ("fcn32s_vgg16", "tight"): references.fcn32s_tight,
    ("fcn16s_vgg16", "tight"): references.fcn16s_tight,
    ("fcn8s_vgg16", "tight"): references.fcn8s_tight,
    ("fcn8s_vgg16_at_once", "tight"): references.fcn8s_at_once_tight,
}
_CHOICES = list(_REFERENCES)
_NAMES = [name for name, padding in _CHOICES if padding == "paper"]
_CROPS = {
    ("fcn32s_vgg16", "paper"): (19,),
    ("fcn16s_vgg16", "paper"): (5, 27),
    ("fcn8s_vgg16", "paper"): (5, 9, 31),
    ("fcn8s_vgg16_at_once", "paper"): (5, 9, 31),
    ("fcn32s_vgg16", "tight"): (16,),
    ("fcn16s_vgg16", "tight"): (-1, 8),
    ("fcn8s_vgg16", "tight"): (-1, -1, 4),
    ("fcn8s_vgg16_at_once", "tight"): (-1, -1, 4),
}


@cache
def _drawn(name: str, padding: str, upsampling: str = "fixed") -> Network:
    """Draw all weights; those behind the scales of at-once so that their streams count."""
    choices = {"width": 4, "padding": padding, "upsampling": upsampling}
    network = make_drawn(lambda: build(name, 3, **choices))
    if name.endswith("at_once"):
        with torch.no_grad():
            network.score_pool4.weight *= 100
            network.score_pool3.weight *= 10_000
    return network


# Which sizes are hard depends on strides and crops, which are those of fcn8s for fcn8s_at_once.
@pytest.mark.parametrize(
    ("name", "padding", "shape"),
    [
        (name, padding, shape)
        for name, padding in _CHOICES
        for shape in SIZES[:: 4 if name.endswith("at_once") else 1]
    ],
)
@torch.no_grad()
def test_it_is_the_published_network(name: str, padding: str, shape: tuple[int, int, int]) -> None:
    """With the same weights it scores as the plain reference does, at every size."""
    network = _drawn(name, padding)
    batch, height, width = shape
    images = draw_images(batch, 3, height, width)
    expected = _REFERENCES[name, padding](network.state_dict(), images)
    assert_scores_equal(network(images), expected)


@torch.no_grad()
def test_it_is_the_published_network_at_full_width() -> None:
    """FCN-8s at its original width scores as the plain reference with the same weights."""
    network = make_drawn(lambda: build("fcn8s_vgg16", 2))
    images = draw_images(1, 3, 64, 90)
    assert_scores_equal(network(images), references.fcn8s(network.state_dict(), images))


@pytest.mark.parametrize(("name", "padding"), _CHOICES)
@torch.no_grad()
def test_the_references_would_notice(name: str, padding: str) -> None:
    """A stream that is left out or a crop a pixel aside is far outside of what is tolerated."""
    weights = dict(_drawn(name, padding).state_dict())
    reference = _REFERENCES[name, padding]
    images = draw_images(1, 3, 255, 257)
    expected = reference(weights, images)
    tolerated = 1e-4 * expected.abs().max()
    assert (expected[..., 1:, :] - expected[..., :-1, :]).abs().max() > 20 * tolerated
    assert (expected[..., 1:] - expected[..., :-1]).abs().max() > 20 * tolerated
    for layer in [key for key in weights if key.startswith("score_") and key.endswith("weight")]:
        without = reference(weights | {layer: weights[layer] * 0}, images)
        assert (without - expected).abs().max() > 1000 * tolerated, layer


@pytest.mark.parametrize(("name", "padding"), _CHOICES)
def test_the_crops_are_the_published_ones(name: str, padding: str) -> None:
    """The crops computed from the layers are the constants of the published definitions."""
    with torch.device("meta"):
        network = build(name, 21, padding=padding)
    assert network.crops == _CROPS[name, padding]


def test_the_tight_crops_are_those_of_uncropped_upsampling() -> None:
    """Counted from uncropped scores the tight crops are 16, 24 and 28, and 1 and 3 at the skips."""
    with torch.device("meta"):
        (last32,), (first16, last16), (pool4, pool3, last8) = (
            build(name, 21, padding="tight").crops for name in _NAMES[:3]
        )
    assert (-first16, -pool4, 2 * -pool4 - pool3) == (1, 1, 3)
    assert (last32, 16 * -first16 + last16, 8 * (2 * -pool4 - pool3) + last8) == (16, 24, 28)


@pytest.mark.parametrize(("name", "padding"), _CHOICES)
def test_it_looks_at_as_much_as_published(name: str, padding: str) -> None:
    """Its receptive field has 404 pixels, its stride is 32, and it takes a single pixel."""
    with torch.device("meta"):
        network = build(name, 21, padding=padding)
    assert (network.receptive_field, network.stride, network.smallest) == (404, 32, 1)
    assert (network.geometry.stride, network.geometry.centre) == (1, 0)


_SURPLUS = {"fcn32s_vgg16": (38, 69), "fcn16s_vgg16": (54, 85), "fcn8s_vgg16": (62, 93)}


@pytest.mark.parametrize("name", _SURPLUS)
def test_the_crops_never_run_out(name: str) -> None:
    """Uncropped scores are larger than images of 1 to 1499 pixels by the published surplus."""
    steps = {"fcn32s_vgg16": [32], "fcn16s_vgg16": [2, 16], "fcn8s_vgg16": [2, 2, 8]}[name]
    surplus = []
    for size in range(1, 1500):
        scores = size + 2 * 100 - 2
        for _ in range(5):
            scores = -(-scores // 2)
        scores -= 6
        for factor in steps:
            scores = (scores - 1) * factor + 2 * factor
        surplus.append(scores - size)
    assert (min(surplus), max(surplus)) == _SURPLUS[name]
    assert min(surplus) >= _CROPS[name, "paper"][-1]


_PARAMETERS = {
    "fcn32s_vgg16": (134_346_581, 21**2 * 64**2),
    "fcn16s_vgg16": (134_357_354, 21**2 * (4**2 + 32**2)),
    "fcn8s_vgg16": (134_362_751, 21**2 * (4**2 + 4**2 + 16**2)),
    "fcn8s_vgg16_at_once": (134_362_751, 21**2 * (4**2 + 4**2 + 16**2)),
}


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize("padding", ["paper", "tight"])
def test_it_has_as_many_parameters_as_published(name: str, padding: str) -> None:
    """With 21 classes it has the published number, and dense kernels more if they are learned."""
    published, kernels = _PARAMETERS[name]
    for upsampling, expected in [("fixed", published), ("learned", published + kernels)]:
        with torch.device("meta"):
            network = build(name, 21, padding=padding, upsampling=upsampling)
        assert sum(parameter.numel() for parameter in network.parameters()) == expected


@pytest.mark.parametrize(("name", "padding"), _CHOICES)
@pytest.mark.parametrize("size", [(1, 1), (33, 31), (130, 67)])
@torch.no_grad()
def test_learned_upsampling_starts_as_the_fixed(
    name: str, padding: str, size: tuple[int, int]
) -> None:
    """With learned upsampling that learned nothing yet the scores are those of the fixed."""
    fixed = _drawn(name, padding)
    learned = build(name, 3, width=4, padding=padding, upsampling="learned").eval()
    new = learned.load_state_dict(fixed.state_dict(), strict=False).missing_keys
    assert len(new) == len(fixed.crops)
    assert all(key.startswith("upscore") for key in new)
    images = draw_images(2, 3, *size)
    assert_scores_equal(learned(images), fixed(images))


@pytest.mark.parametrize(("name", "padding"), _CHOICES)
def test_every_parameter_learns(name: str, padding: str) -> None:
    """The gradient of a loss reaches every layer, and of learned kernels all pairs of channels."""
    network = _drawn(name, padding, "learned")
    network(draw_images(2, 3, 70, 45)).square().mean().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.any(), key
        if key.startswith("upscore"):
            assert parameter.grad.abs().amax((2, 3)).all(), key


@pytest.mark.parametrize("name", _NAMES)
@torch.no_grad()
def test_an_image_does_not_depend_on_its_neighbours(name: str) -> None:
    """In a batch every image gets the scores that it gets alone."""
    network = _drawn(name, "paper")
    images = draw_images(3, 3, 37, 50)
    together = network(images)
    for image, scores in zip(images, together, strict=True):
        assert_scores_equal(network(image[None])[0], scores)


@torch.no_grad()
def test_dropout_is_for_training_only() -> None:
    """In evaluation the same image gets the same scores twice, in training it does not."""
    network = make_drawn(lambda: build("fcn32s_vgg16", 3, width=4)).train()
    images = draw_images(1, 3, 40, 40)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


@pytest.mark.parametrize("padding", ["paper", "tight"])
@torch.no_grad()
def test_the_initial_signal_neither_fades_nor_explodes(padding: str) -> None:
    """Untrained, what reaches the scores has the scale of the images within a factor of 10."""
    torch.manual_seed(0)
    network = build("fcn8s_vgg16", 3, width=8, padding=padding).eval()
    features = []
    network.score_fr.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    images = torch.randn(1, 3, 300, 300)
    network(images)
    centre = features[0][..., 4:-4, 4:-4] if padding == "paper" else features[0][..., 2:-2, 2:-2]
    assert centre.numel() > 0
    assert 0.1 < centre.square().mean().sqrt() < 10
