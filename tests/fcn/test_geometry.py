"""Where outputs lie in the input, against what the layers themselves look at."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fcn.geometry import Geometry, smallest_input


@st.composite
def _layers(draw: st.DrawFn) -> nn.Module:
    kernel_size = draw(st.integers(1, 5))
    stride = draw(st.integers(1, 3))
    padding = draw(st.integers(0, kernel_size // 2))
    if draw(st.booleans()):
        # PyTorch drops windows that begin behind the image, which none of these can.
        rounds_up = draw(st.booleans()) if padding + stride <= kernel_size else False
        return nn.AvgPool2d(kernel_size, stride, padding, ceil_mode=rounds_up)
    dilation = draw(st.integers(1, 3))
    choices = {"stride": stride, "padding": padding, "dilation": dilation, "bias": False}
    layer = nn.Conv2d(1, 1, kernel_size, **choices)
    nn.init.ones_(layer.weight)
    return layer


def _looked_at(chain: list[nn.Module], output: int, size: int) -> tuple[int, int]:
    """Find the first and the last input pixel that an output depends on along the diagonal."""
    image = torch.ones(1, 1, size, size, requires_grad=True)
    scores = nn.Sequential(*chain)(image)
    scores[0, 0, output, output].backward()
    rows = image.grad[0, 0].sum(1).nonzero().flatten()
    return int(rows[0]), int(rows[-1])


@settings(deadline=None, max_examples=60)
@given(st.lists(_layers(), min_size=1, max_size=4))
def test_it_is_what_the_layers_look_at(chain: list[nn.Module]) -> None:
    """An output depends on a field of the computed size around the computed pixel."""
    at = Geometry().then(chain)
    # The first output whose field lies in the image altogether, and the one after it.
    output = max(0, -int((at.centre - (at.receptive_field - 1) / 2) // at.stride))
    size = int(at.stride * (output + 1) + at.centre + at.receptive_field) + 30
    for index in (output, output + 1):
        first, last = _looked_at(chain, index, size)
        assert Fraction(first + last, 2) == at.stride * index + at.centre
        assert last - first + 1 == at.receptive_field


@settings(deadline=None, max_examples=60)
@given(st.lists(_layers(), min_size=1, max_size=4))
def test_the_reach_covers_the_field(chain: list[nn.Module]) -> None:
    """From an output's own index times the stride its field ends within the reach."""
    at = Geometry().then(chain)
    first, last = (at.centre + side * (at.receptive_field - 1) / 2 for side in (-1, 1))
    assert -at.reach <= first
    assert last <= at.reach


@settings(deadline=None, max_examples=60)
@given(st.lists(_layers(), min_size=1, max_size=4))
def test_the_smallest_input_is_the_smallest_that_runs(chain: list[nn.Module]) -> None:
    """The layers run at the smallest size and do not at any below it."""
    network = nn.Sequential(*chain)
    smallest = smallest_input(chain)
    assert network(torch.zeros(1, 1, smallest, smallest)).numel() > 0
    for size in range(1, smallest):
        with pytest.raises(RuntimeError):
            network(torch.zeros(1, 1, size, size))


@pytest.mark.parametrize(
    ("kernel_size", "stride", "padding"), [(4, 2, 0), (16, 8, 4), (63, 32, 0), (3, 2, 1)]
)
def test_a_transposed_convolution_is_one_read_backwards(
    kernel_size: int, stride: int, padding: int
) -> None:
    """A score that stands alone is spread around the output that lies where it lies."""
    deconv = nn.ConvTranspose2d(1, 1, kernel_size, stride, padding, bias=False)
    nn.init.ones_(deconv.weight)
    scores = torch.zeros(1, 1, 7, 7)
    scores[..., 3, 3] = 1
    with torch.no_grad():
        rows = deconv(scores)[0, 0].sum(1).nonzero().flatten()
    at = Geometry().then([deconv])
    assert at.stride * Fraction(int(rows[0] + rows[-1]), 2) + at.centre == 3


def test_layers_of_single_pixels_change_nothing() -> None:
    """Activations, norms, dropout and 1 x 1 convolutions leave everything where it is."""
    layers = [nn.ReLU(), nn.BatchNorm2d(2), nn.Dropout(), nn.Identity(), nn.Conv2d(2, 3, 1)]
    assert Geometry().then(layers) == Geometry()
    assert Geometry().reach == 1


def test_cropped_outputs_begin_later() -> None:
    """Behind a crop output 0 is the one that was the first not to be left out."""
    at = Geometry().then([nn.Conv2d(1, 1, 3, stride=2)])
    assert (at.centre, at.cropped(5).centre) == (1, 11)
    assert at.first_at(at.cropped(5)) == 5
    assert at.cropped(5).first_at(at) == -5


def test_what_lies_on_no_grid_is_refused() -> None:
    """Outputs between another's, or of another stride, are never aligned by rounding."""
    half = Geometry().then([nn.Conv2d(1, 1, 2)])
    coarse = Geometry().then([nn.Conv2d(1, 1, 1, stride=2)])
    for other in (half, coarse):
        with pytest.raises(ValueError, match="do not lie on one grid"):
            Geometry().first_at(other)


def test_a_layer_that_is_not_square_is_refused() -> None:
    """A layer with another height than width is not taken for a square one."""
    with pytest.raises(AssertionError):
        Geometry().then([nn.Conv2d(1, 1, 3, padding="same")])
