"""Bilinear upsampling: kernels, interpolation in their place, parts of a whole."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn.interpolation import Interpolation
from fcn.upsample import FixedUpsample, LearnedUpsample, bilinear_kernel, make_upsample
from tests.fcn.references import bilinear_filler, deconvolve, draw_images

_KERNELS = [(4, 2), (8, 4), (16, 8), (32, 16), (64, 32), (63, 32)]


@pytest.mark.parametrize("kernel_size", [1, 2, 3, 4, 8, 15, 16, 32, 63, 64])
def test_the_kernel_is_the_published_filler(kernel_size: int) -> None:
    """Every number of the kernel is that of the reference implementation's bilinear filler."""
    expected = bilinear_filler(kernel_size)
    torch.testing.assert_close(bilinear_kernel(kernel_size), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("kernel_size", "stride"), _KERNELS)
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_interpolation_is_the_dense_transposed_convolution(
    kernel_size: int, stride: int, data: st.DataObject
) -> None:
    """Fixed and learned layers give what the dense kernels give, at every size and crop."""
    height, width = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)), label="scores")
    batch, channels = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 3)), label="maps")
    scores = draw_images(batch, channels, height, width)
    whole = deconvolve(scores, kernel_size, stride)
    first = data.draw(st.integers(0, min(whole.shape[-2:]) - 1), label="first")
    size = tuple(data.draw(st.integers(1, side - first), label="size") for side in whole.shape[-2:])
    expected = whole[..., first : first + size[0], first : first + size[1]]
    fixed = FixedUpsample(kernel_size, stride)(scores, first, size)
    torch.testing.assert_close(fixed, expected, rtol=0, atol=1e-5)
    with torch.no_grad():
        learned = LearnedUpsample(channels, kernel_size, stride)(scores, first, size)
    torch.testing.assert_close(learned, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_inside_it_is_interpolation_and_at_the_border_it_fades(factor: int) -> None:
    """Cropped by f / 2 it is F.interpolate, but for the outer f / 2 pixels, which see zeros."""
    scores = draw_images(1, 2, 5, 7)
    size = (5 * factor, 7 * factor)
    ours = FixedUpsample(2 * factor, factor)(scores, factor // 2, size)
    theirs = F.interpolate(scores, scale_factor=factor, mode="bilinear", align_corners=False)
    border = factor // 2
    inside = (..., slice(border, -border), slice(border, -border))
    torch.testing.assert_close(ours[inside], theirs[inside], rtol=0, atol=1e-6)
    for edge in (ours - theirs)[..., 0, :], (ours - theirs)[..., -1], (ours - theirs)[..., -1, :]:
        assert (edge.abs() > 0.001).float().mean() > 0.9


def test_a_layer_is_chosen_by_its_mode() -> None:
    """The fixed layer has no parameters; the learned one has a dense kernel that is bilinear."""
    assert list(make_upsample("fixed", 3, 4, 2).parameters()) == []
    (kernel,) = make_upsample("learned", 3, 4, 2).parameters()
    expected = torch.zeros(3, 3, 4, 4)
    expected[[0, 1, 2], [0, 1, 2]] = bilinear_filler(4)
    assert torch.equal(kernel, expected)
    assert kernel.requires_grad


@pytest.mark.parametrize(("kernel_size", "stride"), [(2, 2), (5, 2), (4, 4), (6, 3), (62, 32)])
def test_a_kernel_that_is_not_bilinear_is_refused(kernel_size: int, stride: int) -> None:
    """A kernel that is neither 2f nor 2f - 1 wide, or an odd factor's, is refused by name."""
    with pytest.raises(ValueError, match=f"kernel_size={kernel_size} .* stride={stride}"):
        FixedUpsample(kernel_size, stride)


_INSIDE = (..., slice(48, -48), slice(48, -48))


@pytest.mark.parametrize(("rows", "columns"), [(0.0, 0.0), (0.5, -0.25)])
def test_one_step_is_two_steps_for_scores_that_are_straight(rows: float, columns: float) -> None:
    """Constant and linear scores come out of 2 x then 16 x as of 32 x, away from the border.

    So FCN-16s whose skip is zero says inside what FCN-32s says.
    """
    down = torch.arange(6.0)[:, None] * rows
    scores = (down + torch.arange(7.0) * columns + 1.5)[None, None]
    size = (192, 224)
    once = FixedUpsample(64, 32)(scores, 16, size)
    twice = FixedUpsample(32, 16)(FixedUpsample(4, 2)(scores, 1, (12, 14)), 8, size)
    torch.testing.assert_close(twice[_INSIDE], once[_INSIDE], rtol=0, atol=1e-5)
    thrice = FixedUpsample(4, 2)(FixedUpsample(4, 2)(scores, 1, (12, 14)), 1, (24, 28))
    thrice = FixedUpsample(16, 8)(thrice, 4, size)
    torch.testing.assert_close(thrice[_INSIDE], once[_INSIDE], rtol=0, atol=1e-5)


def test_two_steps_cut_the_corners_of_other_scores() -> None:
    """Of a single peak two steps make a lower one: the networks are not equal bit for bit."""
    scores = torch.zeros(1, 1, 5, 5)
    scores[..., 2, 2] = 1
    once = FixedUpsample(64, 32)(scores, 16, (160, 160))
    twice = FixedUpsample(32, 16)(FixedUpsample(4, 2)(scores, 1, (10, 10)), 8, (160, 160))
    assert 0.9 < once.max() < 1
    assert 0.5 < twice.max() < 0.9 * once.max()


def _exact(scores: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Interpolate in float64: in float32 the places of pixels far down are rounded."""
    return F.interpolate(scores.double(), size, mode="bilinear", align_corners=False).float()


_SIDES = st.integers(1, 60)


@settings(deadline=None, max_examples=150)
@given(data=st.data(), source=st.tuples(_SIDES, _SIDES), factor=st.floats(0.3, 33))
def test_a_part_is_interpolated_as_in_the_whole(
    data: st.DataObject, source: tuple[int, int], factor: float
) -> None:
    """From the part of the scores that it names a part of the output is made as the whole is."""
    target = tuple(
        max(1, round(side * factor) - data.draw(st.integers(0, 7), label="less")) for side in source
    )
    first = tuple(data.draw(st.integers(0, side - 1), label="first") for side in target)
    size = tuple(
        data.draw(st.integers(1, side - start), label="size")
        for side, start in zip(target, first, strict=True)
    )
    scores = draw_images(2, 2, *source)
    interpolation = Interpolation(source, target)
    begin, behind = interpolation.sources(first, size)
    part = scores[..., begin[0] : behind[0], begin[1] : behind[1]]
    found = interpolation.part(part, begin, first, size)
    rows, columns = (slice(a, a + n) for a, n in zip(first, size, strict=True))
    expected = _exact(scores, target)[..., rows, columns]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=100)
@given(data=st.data(), picture=st.tuples(st.integers(1, 300), st.integers(1, 300)))
def test_scores_that_a_part_lacks_change_its_border_only(
    data: st.DataObject, picture: tuple[int, int]
) -> None:
    """From any part, pixels between scores that it has get the value that the whole gives."""
    stride = 8
    source = tuple(-(-side // stride) for side in picture)
    begin = tuple(data.draw(st.integers(0, side - 1), label="begin") for side in source)
    behind = tuple(
        data.draw(st.integers(start + 1, side), label="behind")
        for start, side in zip(begin, source, strict=True)
    )
    scores = draw_images(1, 2, *source)
    first = tuple(start * stride for start in begin)
    last = tuple(min(end * stride, side) for end, side in zip(behind, picture, strict=True))
    size = (last[0] - first[0], last[1] - first[1])
    part = scores[..., begin[0] : behind[0], begin[1] : behind[1]]
    found = Interpolation(source, picture).part(part, begin, first, size)
    assert found.shape == (1, 2, *size)
    known = []
    for axis in (0, 1):
        at = (torch.arange(first[axis], last[axis]).double() + 0.5) * source[axis] / picture[axis]
        low = (at - 0.5).clamp(min=0).floor()
        high = (low + 1).clamp(max=source[axis] - 1)
        known.append((low >= begin[axis]) & (high < behind[axis]))
    inside = known[0][:, None] & known[1]
    expected = _exact(scores, picture)[..., first[0] : last[0], first[1] : last[1]]
    torch.testing.assert_close(found[..., inside], expected[..., inside], rtol=0, atol=1e-5)


def test_far_down_a_large_picture_a_part_is_still_exact() -> None:
    """At row 19,000 of a picture of 20,001 rows a part is what the whole gives, to rounding."""
    scores = draw_images(1, 1, 2501, 1)
    interpolation = Interpolation((2501, 1), (20_001, 8))
    found = interpolation.part(scores[..., 2374:, :], (2374, 0), (19_000, 0), (1001, 8))
    expected = _exact(scores, (20_001, 8))[..., 19_000:, :]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_places_that_labelling_has_found_can_be_trained_with() -> None:
    """They are kept for the next picture, whoever asks first: a training evaluates in between."""
    there = Interpolation((5, 7), (23, 31))
    maps = torch.randn(1, 2, 5, 7)
    with torch.inference_mode():
        first = there.part(maps, (0, 0), (0, 0), (23, 31))
    trained = maps.clone().requires_grad_()
    again = there.part(trained, (0, 0), (0, 0), (23, 31))
    again.sum().backward()
    torch.testing.assert_close(again.detach(), first)
    assert trained.grad is not None
