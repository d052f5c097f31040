"""What networks do on a GPU, on tensors that say so and hold nothing (PyTorch's fake tensors).

A CPU takes other branches; here types and devices are those of a card, whose rules PyTorch checks.
Numbers are compared where there is one (tests/gpu).
"""

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from fcn import interpolation
from fcn.architectures import ARCHITECTURES
from fcn.inference.lowered import lower
from fcn.inference.preprocess import Preprocess
from fcn.interpolation import Window
from fcn.models import NETWORKS, layers
from fcn.models.network import Network
from fcn.weights.classes import numbered_classes
from fcn.weights.files import build_recorded
from fcn.weights.record import Checkpoint

_GPU = torch.device("cuda", 0)


def _convolve(
    features: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *rest: object
) -> torch.Tensor:
    return F.relu(F.conv2d(features, weight, bias, *rest))  # type: ignore[arg-type]


def _convolve_and_add(
    features: torch.Tensor,
    weight: torch.Tensor,
    added: torch.Tensor,
    _: float,
    bias: torch.Tensor,
    *rest: object,
) -> torch.Tensor:
    return F.relu(F.conv2d(features, weight, bias, *rest) + added)  # type: ignore[arg-type]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    """Return a mode in which there is a GPU, whose fused operations are there in plain form."""
    monkeypatch.setattr(layers, "_has_fusion", lambda *_: True)
    monkeypatch.setattr(layers, "find_kernels", lambda _: None)
    monkeypatch.setattr(torch, "cudnn_convolution_relu", _convolve)
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", _convolve_and_add)
    interpolation._kept_places.cache_clear()
    yield FakeTensorMode()
    interpolation._kept_places.cache_clear()


def _lowered(name: str, dtype: torch.dtype) -> Network:
    width = 16 if "width" in ARCHITECTURES[name] else 64
    record = Checkpoint(name, numbered_classes(5), width=width, weights_sha256="random:0")
    return lower(build_recorded(record), torch.device("cpu"), dtype)


@pytest.mark.parametrize("window", [None, Window((64, 96), (400, 500))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_lowered_network_runs_on_a_card(
    card: FakeTensorMode, name: str, dtype: torch.dtype, window: Window | None
) -> None:
    """Every network takes pictures and tiles in every type, and its scores stay on the card."""
    network = _lowered(name, dtype)
    tensors = [*network.named_parameters(), *network.named_buffers()]
    with card, torch.inference_mode():
        there = {name: card.from_tensor(tensor).to(_GPU) for name, tensor in tensors}
        images = torch.zeros(2, 3, 96, 128, device=_GPU, dtype=dtype)
        images = images.to(memory_format=torch.channels_last)
        scores = torch.func.functional_call(network, there, (images, window))
    assert scores.device == _GPU
    assert scores.shape == (2, 5, 96, 128)
    assert scores.dtype in {torch.float32, dtype}


@pytest.mark.parametrize("order", ["RGB", "BGR"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_pixels_are_normalised_on_a_card(
    card: FakeTensorMode, order: str, dtype: torch.dtype
) -> None:
    """uint8 pixels become the network's type, channels last, without leaving the card."""
    preprocess = Preprocess(Checkpoint("fcn_all_skips", numbered_classes(2), channel_order=order))
    with card, torch.inference_mode():
        there = {name: card.from_tensor(one).to(_GPU) for name, one in preprocess.named_buffers()}
        images = torch.zeros(2, 5, 7, 3, dtype=torch.uint8, device=_GPU)
        found = torch.func.functional_call(preprocess, there, (images, dtype))
    assert (found.device, found.dtype, found.shape) == (_GPU, dtype, (2, 3, 5, 7))
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_large_kernels_are_products_also_when_compiled(
    card: FakeTensorMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fully connected layers of a network that labels are matrix products, compiled or not."""
    asked = []
    plain = layers.as_product
    monkeypatch.setattr(
        layers, "as_product", lambda conv, *rest: (asked.append(conv), plain(conv, *rest))[1]
    )
    conv = torch.nn.Conv2d(8, 16, 7).to(memory_format=torch.channels_last)
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda found=compiling: found)
        with card, torch.inference_mode():
            there = {name: card.from_tensor(one).to(_GPU) for name, one in conv.named_parameters()}
            features = torch.zeros(1, 8, 9, 9, device=_GPU)
            module = layers.ConvReLU(conv)
            given = {f"conv.{name}": tensor for name, tensor in there.items()}
            torch.func.functional_call(module, given, (features,))
    assert len(asked) == 2
