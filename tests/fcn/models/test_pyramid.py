"""Pyramids: EfficientNet-Lite0's encoder as it was published, levels that meet, frozen encoders."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F

from fcn.models import build
from fcn.models.pyramid import Upsample2
from fcn.training.batch import Batch
from fcn.training.recipes import RECIPES
from fcn.training.trainer import Trainer
from fcn.weights.classes import numbered_classes
from fcn.weights.conversion import Wanted, convert
from fcn.weights.files import random_network
from fcn.weights.record import Checkpoint
from tests.disk_runs import random_pixels

# The published blocks: repeats, kernel, stride, expansion, channels in and out (table 1).
_STAGES = (
    *((1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80)),
    *((3, 5, 1, 6, 80, 112), (4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320)),
)


def _blocks() -> list[tuple[int, int, int, int, int]]:
    """List kernel, stride, expansion and channels of all blocks."""
    return [
        (kernel, stride if not index else 1, expansion, before if not index else after, after)
        for number, kernel, stride, expansion, before, after in _STAGES
        for index in range(number)
    ]


def _published(generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Draw a state dict with the names and shapes of the port's classifier."""
    found: dict[str, torch.Tensor] = {}

    def conv(name: str, *shape: int) -> None:
        scale = (shape[1] * shape[2] * shape[3]) ** -0.5
        found[f"{name}.weight"] = torch.randn(shape, generator=generator) * scale

    def norm(name: str, channels: int) -> None:
        for tensor in ("weight", "running_var"):
            found[f"{name}.{tensor}"] = 0.5 + torch.rand(channels, generator=generator)
        for tensor in ("bias", "running_mean"):
            found[f"{name}.{tensor}"] = torch.randn(channels, generator=generator)
        found[f"{name}.num_batches_tracked"] = torch.tensor(7)

    conv("_conv_stem", 32, 3, 3, 3)
    norm("_bn0", 32)
    for number, (kernel, _, expansion, before, after) in enumerate(_blocks()):
        name, wide = f"_blocks.{number}", before * expansion
        if expansion > 1:
            conv(f"{name}._expand_conv", wide, before, 1, 1)
            norm(f"{name}._bn0", wide)
        conv(f"{name}._depthwise_conv", wide, 1, kernel, kernel)
        norm(f"{name}._bn1", wide)
        conv(f"{name}._project_conv", after, wide, 1, 1)
        norm(f"{name}._bn2", after)
    conv("_conv_head", 1280, 320, 1, 1)
    norm("_bn1", 1280)
    found["_fc.weight"], found["_fc.bias"] = torch.zeros(1000, 1280), torch.zeros(1000)
    return found


def _features(given: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    """Compute the published encoder's features by its names, padded as TensorFlow pads."""

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(given[f"{name}.{one}"] for one in names), eps=1e-3)

    def conv(name: str, x: torch.Tensor, stride: int = 1, groups: int = 1) -> torch.Tensor:
        weight = given[f"{name}.weight"]
        pads = []
        for side in reversed(x.shape[-2:]):
            total = max((-(-side // stride) - 1) * stride + weight.shape[-1] - side, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)

    x = F.relu6(norm("_bn0", conv("_conv_stem", images, 2)))
    for number, (_, stride, expansion, before, after) in enumerate(_blocks()):
        name, given_x = f"_blocks.{number}", x
        if expansion > 1:
            x = F.relu6(norm(f"{name}._bn0", conv(f"{name}._expand_conv", x)))
        x = conv(f"{name}._depthwise_conv", x, stride, before * expansion)
        x = norm(f"{name}._bn2", conv(f"{name}._project_conv", F.relu6(norm(f"{name}._bn1", x))))
        x = x + given_x if stride == 1 and before == after else x
    return x


@torch.no_grad()
def test_an_imported_encoder_is_the_published_one() -> None:
    """At a size whose halves are even, the imported features are those of the port's weights."""
    generator = torch.Generator().manual_seed(0)
    given = _published(generator)

    imported = convert(given, Wanted("fcn_lite0", num_classes=4))

    images = torch.randn(1, 3, 64, 96, generator=generator)
    features = imported.network.eval().encoder(images)[4]  # type: ignore[operator]
    expected = _features(given, images)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
    assert imported.record.mean == (127 / 255,) * 3
    assert imported.record.std == (128 / 255,) * 3
    untrained = imported.record.untrained_layers
    assert {layer.partition(".")[0] for layer in untrained} == {
        *("encoder", "laterals", "mixes", "classifier"),
    }
    assert all(one.startswith("encoder.levels.5.") for one in untrained if "encoder" in one)


@pytest.mark.parametrize("first", [0, 1])
def test_upsampling_goes_on_at_the_border(first: int) -> None:
    """Inside it is a transposed convolution of tents; at the border a plane stays a plane."""
    maps = torch.randn(1, 1, 5, 6, generator=torch.Generator().manual_seed(1))
    tent = torch.tensor([0.5, 1, 0.5])
    expected = F.conv_transpose2d(maps, torch.outer(tent, tent)[None, None], stride=2)

    found = Upsample2()(maps, first, (10, 12))

    inside = (..., slice(2, 8), slice(2, 10))
    torch.testing.assert_close(found[inside], expected[..., first:, first:][inside])
    assert (Upsample2()(torch.ones(1, 1, 3, 3), first, (6, 6)) == 1).all()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute with one thread: so small, a hundred layers are a hundred waits for another one."""
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(number)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_an_encoder_has_a_rate_of_its_own(rate: float) -> None:
    """At a rate of 0 nothing of it changes, batch norms included; else it learns at that factor."""
    record = Checkpoint("fcn_pyramid", numbered_classes(3), width=4)
    network = random_network(record, 0)
    recipe = dataclasses.replace(RECIPES["modern"], encoder_rate=rate)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images = [random_pixels(index, 32, 48, 3) for index in range(4)]
    batch = Batch(images, [image[..., 0] % 3 for image in images], range(4))

    trainer = Trainer(network, record, recipe)
    trainer.step(batch, 100, 0.0)
    trainer.predict(images[:1])
    trainer.step(batch, 101, 0.0)

    changed = {
        name.partition(".")[0]
        for name, tensor in network.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert "classifier" in changed
    assert ("encoder" in changed) == (rate > 0)
    rates = {group["factor"] for group in trainer._optimizer.param_groups}
    assert rates == ({1.0, rate} if rate else {1.0})


def test_sizes_and_strides_are_as_described() -> None:
    """Both end at stride 64 and run from single pixels on; Lite0 has 3.4 million parameters."""
    with torch.device("meta"):
        networks = [build("fcn_pyramid", 2), build("fcn_lite0", 2)]
    assert [network.stride for network in networks] == [64, 64]
    assert [network.smallest for network in networks] == [1, 1]
    numbers = [sum(one.numel() for one in network.parameters()) for network in networks]
    assert numbers == [6_586_434, 3_366_914]
