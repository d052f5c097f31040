"""Preprocessing: the record's numbers, applied to the pixels as every source of weights does."""

import numpy as np
import pytest
import torch

from fcn.inference.preprocess import Preprocess
from fcn.weights.classes import numbered_classes
from fcn.weights.record import Checkpoint
from tests.disk_runs import random_pixels


def _record(**fields: object) -> Checkpoint:
    return Checkpoint("fcn_all_skips", numbered_classes(2), **fields)


def test_pixels_are_normalised() -> None:
    """A value is scaled to [0, 1], less the channel's mean, over the channel's deviation."""
    record = _record(mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
    images = torch.tensor([[[[0, 255, 51], [255, 0, 255]]]], dtype=torch.uint8)
    normalised = Preprocess(record)(images)
    expected = [[[[-1.0, 1.0]], [[0.75, -0.25]], [[0.1, 0.5]]]]
    torch.testing.assert_close(normalised, torch.tensor(expected))


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_it_is_what_numpy_computes(order: str) -> None:
    """With ImageNet's numbers the result is the formula's, in the order that the network wants.

    Mean and deviation belong to the channels in that order.
    """
    images = random_pixels(0, 2, 5, 7, 3)
    record = _record(channel_order=order)
    ordered = images[..., ::-1] if order == "BGR" else images
    expected = (ordered / 255 - np.array(record.mean)) / np.array(record.std)
    normalised = Preprocess(record)(torch.from_numpy(images))
    assert normalised.shape == (2, 3, 5, 7)
    assert normalised.dtype == torch.float32
    np.testing.assert_allclose(normalised.permute(0, 2, 3, 1), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_the_result_is_channels_last(order: str) -> None:
    """The memory format is the one that convolutions like, whatever the order of the channels."""
    normalised = Preprocess(_record(channel_order=order))(
        torch.zeros(2, 5, 7, 3, dtype=torch.uint8)
    )
    assert normalised.is_contiguous(memory_format=torch.channels_last)


def test_it_has_no_weights() -> None:
    """Nothing of it is stored with the weights: the numbers stand in the record."""
    assert Preprocess(_record()).state_dict() == {}


def test_it_moves_with_the_network() -> None:
    """Its numbers go to the device of the network."""
    moved = Preprocess(_record()).to("meta")
    assert {buffer.device.type for buffer in moved.buffers()} == {"meta"}


def test_pixels_stay_as_they_are() -> None:
    """The images that are given are not changed."""
    images = torch.from_numpy(random_pixels(0, 1, 4, 4, 3))
    before = images.clone()
    Preprocess(_record())(images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_one_pass_is_the_same_but_for_rounding(order: str, dtype: torch.dtype) -> None:
    """What GPUs compute differs from the formula by what its type can't tell apart."""
    preprocess = Preprocess(_record(channel_order=order))
    images = torch.from_numpy(random_pixels(0, 2, 5, 7, 3))
    ordered = images.permute(0, 3, 1, 2)
    ordered = ordered.flip(1) if order == "BGR" else ordered
    found = preprocess._at_once(ordered, dtype)
    expected = preprocess(images)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)
    largest = 4 * expected.abs().max() * torch.finfo(dtype).eps
    assert (found.float() - expected).abs().max() <= largest
