"""What holds for every network: how it is built, its sizes, and parts of pictures."""

from functools import cache
from unittest import mock

import pytest
import torch

from fcn.architectures import ARCHITECTURES, PADDING, WIDTH
from fcn.interpolation import Window
from fcn.models import NETWORKS, Network, build
from fcn.models.paper import alexnet
from tests.fcn.references import assert_scores_equal, draw_images, make_drawn

_CHOICES = [
    (name, padding)
    for name in NETWORKS
    for padding in ("paper", "tight")
    if padding == "paper" or PADDING in ARCHITECTURES[name]
]
_SCORED_BY_ZEROS = [name for name in NETWORKS if name.startswith(("fcn32s", "fcn16s", "fcn8s"))]


@cache
def _drawn(name: str, padding: str) -> Network:
    """Draw all weights of a network, as narrow as it can be."""
    choices = {"width": 4} if WIDTH in ARCHITECTURES[name] else {}
    with mock.patch.object(alexnet, "_FC_CHANNELS", 64):
        network = make_drawn(lambda: build(name, 2, padding=padding, **choices))
    if name.endswith("at_once"):
        with torch.no_grad():
            network.score_pool4.weight *= 100
            network.score_pool3.weight *= 10_000
    return network


Span = tuple[int, int]


def _near(span: Span, margin: int, side: int) -> Span:
    return max(0, span[0] - margin), min(side, span[1] + margin)


def _score_part(
    network: Network, picture: torch.Tensor, rows: Span, columns: Span, margin: int
) -> torch.Tensor:
    """Score a region from the part of a picture that it and its margin are."""
    height, width = picture.shape[-2:]
    top, bottom = _near(rows, margin, height)
    left, right = _near(columns, margin, width)
    window = Window(first=(top, left), picture=(height, width))
    scores = network(picture[..., top:bottom, left:right].contiguous(), window)
    return scores[..., rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left]


# Sizes that nothing divides; regions at the beginning, inside and at the end. The ResNets, which
# can't be narrow, and what looks far get strips; those of 8n + 1 pixels stretch their scores most.
_PLANE = ((613, 571), [(0, 40), (288, 322), (576, 613)], [(0, 40), (288, 313), (544, 571)])
_STRIPS = {
    "fcn_pyramid": [
        ((1301, 45), [(0, 40), (640, 674), (1216, 1301)], [(0, 45)]),
        ((45, 1301), [(0, 45)], [(0, 40), (640, 674), (1216, 1301)]),
    ],
    "fcn_lite0": [
        ((1749, 45), [(0, 40), (832, 861), (1664, 1749)], [(0, 45)]),
        ((45, 1749), [(0, 45)], [(0, 40), (832, 861), (1664, 1749)]),
    ],
    "fcn_resnet50": [
        ((613, 37), [(0, 40), (288, 322), (576, 613)], [(0, 37)]),
        ((37, 613), [(0, 37)], [(0, 40), (288, 322), (576, 613)]),
        ((1209, 9), [(912, 940)], [(0, 9)]),
    ],
    "fcn_resnet101": [
        ((1111, 21), [(0, 40), (560, 589)], [(0, 21)]),
        ((9, 1633), [(0, 9)], [(1080, 1109)]),
    ],
}
_PICTURES = [
    (name, padding, *picture)
    for name, padding in _CHOICES
    for picture in _STRIPS.get(name, [_PLANE])
]
_INSIDE = [
    (name, padding, size, rows[len(rows) // 2], columns[len(columns) // 2])
    for name, padding, size, rows, columns in _PICTURES
]
_SCALES = {"fcn32s_alexnet": 50}


def _picture(name: str, size: tuple[int, int]) -> torch.Tensor:
    return draw_images(1, 3, *size, scale=_SCALES.get(name, 1))


@cache
def _whole(name: str, padding: str, size: tuple[int, int]) -> torch.Tensor:
    """Score a picture as one; several tests look at it."""
    return _drawn(name, padding)(_picture(name, size))


@pytest.mark.parametrize(("name", "padding", "size", "all_rows", "all_columns"), _PICTURES)
@torch.no_grad()
def test_a_part_with_its_margin_gets_the_scores_of_the_whole(
    name: str,
    padding: str,
    size: tuple[int, int],
    all_rows: list[Span],
    all_columns: list[Span],
) -> None:
    """Cut at a multiple of the stride, with its margin, a region is scored as in the picture."""
    network = _drawn(name, padding)
    picture = _picture(name, size)
    whole = _whole(name, padding, size)
    tolerated = 1e-4 * whole.abs().max()
    assert whole.std() > 100 * tolerated
    for rows in all_rows:
        for columns in all_columns:
            part = _score_part(network, picture, rows, columns, network.margin)
            expected = whole[..., slice(*rows), slice(*columns)]
            assert part.shape == expected.shape
            assert (part - expected).abs().max() <= tolerated, (rows, columns)


@pytest.mark.parametrize(("name", "padding", "size", "rows", "columns"), _INSIDE)
@torch.no_grad()
def test_half_the_margin_is_not_enough(
    name: str, padding: str, size: tuple[int, int], rows: Span, columns: Span
) -> None:
    """With half the margin the scores of a region inside are others."""
    network = _drawn(name, padding)
    picture = _picture(name, size)
    whole = _whole(name, padding, size)
    margin = network.margin // 2 // network.stride * network.stride
    part = _score_part(network, picture, rows, columns, margin)
    difference = (part - whole[..., slice(*rows), slice(*columns)]).abs().max()
    assert difference > 1e-4 * whole.abs().max()


@pytest.mark.parametrize(("name", "padding", "size", "rows", "columns"), _INSIDE)
@torch.no_grad()
def test_the_margin_is_what_decides(
    name: str, padding: str, size: tuple[int, int], rows: Span, columns: Span
) -> None:
    """What is beyond the margin reaches no score of a region, what is 64 pixels nearer does."""
    network = _drawn(name, padding)
    picture = _picture(name, size)

    def reached(margin: int) -> bool:
        near = (
            ...,
            slice(*_near(rows, margin, size[0])),
            slice(*_near(columns, margin, size[1])),
        )

        def scores(beyond: float) -> torch.Tensor:
            hidden = torch.full_like(picture, beyond)
            hidden[near] = picture[near]
            return network(hidden)[..., slice(*rows), slice(*columns)]

        if name == "fcn_pyramid":
            # It has nothing to spare, and reads neighbours with a weight of 0, which NaN survives.
            return not torch.equal(scores(0.0), scores(1e4))
        # Not a number is what nothing that looks at it can hide.
        return not scores(float("nan")).isfinite().all()

    assert not reached(network.margin)
    assert reached(network.margin - 64)
    assert network.margin % network.stride == 0


@pytest.mark.parametrize(("name", "padding"), _CHOICES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 3), (2, 17, 45), (1, 40, 1)])
@torch.no_grad()
def test_any_size_gives_scores_at_its_size(
    name: str, padding: str, shape: tuple[int, int, int]
) -> None:
    """Images of every size from a single pixel get a finite score per class and pixel."""
    batch, height, width = shape
    scores = _drawn(name, padding)(draw_images(batch, 3, height, width))
    assert scores.shape == (batch, 2, height, width)
    assert scores.isfinite().all()


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_an_image_does_not_depend_on_its_neighbours(name: str) -> None:
    """In a batch every image gets the scores that it gets alone."""
    network = _drawn(name, "paper")
    images = draw_images(3, 3, 21, 34)
    together = network(images)
    for image, scores in zip(images, together, strict=True):
        assert_scores_equal(network(image[None])[0], scores)


@pytest.mark.parametrize("in_channels", [1, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_images_may_have_other_channels(name: str, in_channels: int) -> None:
    """The number of channels of the input is an argument, which only the first layer knows."""
    with torch.device("meta"):
        network, usual = (build(name, 2, in_channels=number) for number in (in_channels, 3))
        assert network(torch.zeros(2, in_channels, 5, 64)).shape == (2, 2, 5, 64)
    mine, theirs = network.state_dict(), usual.state_dict()
    assert list(mine) == list(theirs)
    others = [key for key in mine if mine[key].shape != theirs[key].shape]
    (first,) = others
    out_channels, _, *kernel = theirs[first].shape
    assert mine[first].shape == (out_channels, in_channels, *kernel)


@pytest.mark.parametrize("name", _SCORED_BY_ZEROS)
@torch.no_grad()
def test_the_papers_networks_start_with_scores_of_zero(name: str) -> None:
    """Their scoring layers are zero before training, and nothing else is but the biases."""
    choices = {"width": 4} if WIDTH in ARCHITECTURES[name] else {}
    with mock.patch.object(alexnet, "_FC_CHANNELS", 64):
        network = build(name, 3, **choices).eval()
    assert not network(draw_images(1, 3, 20, 30)).any()
    for key, tensor in network.state_dict().items():
        if key.endswith("weight"):
            assert tensor.any() != key.startswith("score_"), key


@torch.no_grad()
def test_a_new_skip_leaves_the_scores_below_it() -> None:
    """FCN-16s whose skip is still zero says inside an even image what FCN-32s says, else nearly."""
    coarse = _drawn("fcn32s_vgg16", "paper")
    fine = build("fcn16s_vgg16", 2, width=4).eval()
    new = fine.load_state_dict(coarse.state_dict(), strict=False).missing_keys
    assert new == ["score_pool4.weight", "score_pool4.bias"]
    # Among equal pixels all scores are equal.
    image = torch.full((1, 3, 801, 777), 0.7)
    inside = (..., slice(384, 416), slice(384, 390))
    expected = coarse(image)[inside]
    assert expected.abs().min() > 0
    assert_scores_equal(fine(image)[inside], expected)
    noise = draw_images(1, 3, 100, 100)
    difference = (fine(noise) - coarse(noise)).abs().max() / coarse(noise).abs().max()
    assert 1e-4 < difference < 0.5


def test_every_name_can_be_built() -> None:
    """The list of names, which is known without torch, is that of the networks."""
    assert list(NETWORKS) == list(ARCHITECTURES)


@pytest.mark.parametrize(
    ("name", "choices", "message"),
    [
        ("fcn8s", {}, "network='fcn8s' is unknown; there are: fcn32s_vgg16, .*fcn_resnet101"),
        ("fcn_resnet50", {"padding": "tight"}, "padding='tight' does not apply to fcn_resnet50"),
        ("fcn_all_skips", {"padding": "tight"}, "padding='tight' does not apply to fcn_all_skips"),
        ("fcn8s_vgg16", {"padding": "same"}, "padding='same'; it is one of paper, tight"),
        ("fcn8s_vgg16", {"upsampling": "nearest"}, "it is one of fixed, learned"),
        ("fcn_resnet50", {"upsampling": "learned"}, "upsampling='learned' does not apply"),
        ("fcn_all_skips", {"upsampling": "learned"}, "upsampling='learned' does not apply"),
        ("fcn8s_vgg16", {"width": 7}, "width=7; it is an even number from 2 up"),
        ("fcn8s_vgg16", {"width": 0}, "width=0; it is an even number from 2 up"),
        ("fcn32s_alexnet", {"width": 32}, "width=32 does not apply to fcn32s_alexnet"),
    ],
)
def test_what_a_network_does_not_have_is_refused(
    name: str, choices: dict[str, object], message: str
) -> None:
    """An unknown name or a choice that a network lacks is refused by field and value."""
    with pytest.raises(ValueError, match=message):
        build(name, 2, **choices)
