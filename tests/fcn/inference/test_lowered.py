"""A network lowered for a GPU says what it says otherwise; here in the forms that a CPU can run."""

import numpy as np
import pytest
import torch
from torch import nn

from fcn.architectures import ARCHITECTURES
from fcn.inference.lowered import lower
from fcn.models import NETWORKS, layers
from fcn.models.layers import as_product
from fcn.models.network import Network
from fcn.weights.classes import numbered_classes
from fcn.weights.files import random_network
from fcn.weights.record import Checkpoint

_CPU = torch.device("cpu")


def _network(name: str, upsampling: str = "fixed") -> Network:
    record = Checkpoint(
        name,
        numbered_classes(5),
        width=16 if "width" in ARCHITECTURES[name] else 64,
        upsampling=upsampling,
        weights_sha256="random:0",
    )
    network = random_network(record, 0)
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        # Norms as training leaves them: those that are as they start can't be told from none.
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var, module.bias.data):
                assert tensor is not None
                tensor.uniform_(0.5, 1.5, generator=generator)
            assert module.running_mean is not None
            module.running_mean.uniform_(-0.5, 0.5, generator=generator)
    return network


def _images(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_lowered_network_gives_the_scores_of_the_original(name: str) -> None:
    """In fp32 all networks give the same scores lowered as they are, but for rounding."""
    network = _network(name)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images = _images(70, 93)
    with torch.inference_mode():
        expected = network(images)
        found = lower(network, _CPU, torch.float32)(images)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_lowered_network_rounds_as_autocast_does(name: str) -> None:
    """In bf16 scores are about as far from those in fp32 as they are under autocast."""
    network = _network(name)
    images = _images(70, 93)
    with torch.inference_mode():
        exact = network(images)
        with torch.autocast("cpu", torch.bfloat16):
            cast = network(images).float()
        found = lower(network, _CPU, torch.bfloat16)(images.bfloat16()).float()
    assert (found - exact).abs().mean() <= 1.5 * (cast - exact).abs().mean()


def test_learned_upsampling_keeps_full_precision() -> None:
    """Kernels that interpolate scores stay in float32, as those that are fixed."""
    lowered = lower(_network("fcn8s_vgg16", "learned"), _CPU, torch.bfloat16)
    with torch.inference_mode():
        scores = lowered(_images(40, 40).bfloat16())
    assert scores.dtype is torch.float32
    assert lowered.get_submodule("upscore8").weight.dtype is torch.float32


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("number", [1, 5])
def test_a_product_of_patches_is_a_convolution(
    kernel_size: int, padding: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patches times weights is what the convolution gives, also in several parts."""
    monkeypatch.setattr("fcn.models.layers._PATCHES", 200)
    conv = nn.Conv2d(6, 10, kernel_size, padding=padding)
    conv = conv.to(memory_format=torch.channels_last)
    features = torch.randn(number, 6, 9, 11).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected, found = conv(features), as_product(conv, features)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_product_of_patches_is_one_graph() -> None:
    """Compiled networks keep it: nothing in it has to run between two graphs."""
    conv = nn.Conv2d(6, 10, 7, padding=3).to(memory_format=torch.channels_last)
    features = torch.randn(2, 6, 9, 11).to(memory_format=torch.channels_last)
    compiled = torch.compile(as_product, backend="eager", dynamic=False, fullgraph=True)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(conv, features), as_product(conv, features))


@pytest.mark.parametrize("channels", [3, 15, 16, 20])
def test_channels_of_zeros_change_nothing(channels: int) -> None:
    """Widened pixels and kernels give what the narrow ones give, channels last."""
    pixels = torch.randn(2, channels, 7, 9).to(memory_format=torch.channels_last)
    kernels = torch.randn(5, channels, 3, 3).to(memory_format=torch.channels_last)
    widened = [layers._widened(tensor) for tensor in (pixels, kernels)]
    assert widened[0].shape[1] == widened[1].shape[1] == max(16, channels)
    assert widened[0].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(
        nn.functional.conv2d(*widened), nn.functional.conv2d(pixels, kernels)
    )
