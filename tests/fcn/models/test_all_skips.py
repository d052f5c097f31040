"""`fcn_all_skips`: the network of the notes, for every size."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torchvision.models.vgg import make_layers, vgg16

from fcn.models import build
from fcn.models.all_skips import FCNAllSkips
from tests.fcn.references import assert_scores_equal, draw_everything, draw_images, make_drawn


class _Notes(nn.Module):
    """The first network of the project's notes, as it is written there."""

    def __init__(self, n_class: int, w: int = 64) -> None:
        super().__init__()
        channels = [3, w, 2 * w, 4 * w, 8 * w, 8 * w]
        for block in range(1, 6):
            before, after = channels[block - 1 : block + 1]
            layers = nn.Sequential(
                nn.Conv2d(before, after, kernel_size=3, padding=1),
                nn.ReLU(),
                nn.Conv2d(after, after, kernel_size=3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(kernel_size=2, stride=2),
            )
            self.add_module(f"block{block}", layers)
        self.relu = nn.ReLU(inplace=True)
        widths = [8 * w, 8 * w, 4 * w, 2 * w, w, w // 2]
        for step in range(1, 6):
            deconv = nn.ConvTranspose2d(
                widths[step - 1],
                widths[step],
                kernel_size=3,
                stride=2,
                padding=1,
                dilation=1,
                output_padding=1,
            )
            self.add_module(f"deconv{step}", deconv)
            self.add_module(f"bn{step}", nn.BatchNorm2d(widths[step]))
        self.classifier = nn.Conv2d(w // 2, n_class, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x1 = self.block1(x)
        x2 = self.block2(x1)
        x3 = self.block3(x2)
        x4 = self.block4(x3)
        x5 = self.block5(x4)
        score = self.bn1(self.relu(self.deconv1(x5)))
        score = score + x4
        score = self.bn2(self.relu(self.deconv2(score)))
        score = score + x3
        score = self.bn3(self.relu(self.deconv3(score)))
        score = score + x2
        score = self.bn4(self.relu(self.deconv4(score)))
        score = score + x1
        score = self.bn5(self.relu(self.deconv5(score)))
        return self.classifier(score)


class _NotesVGG16(nn.Module):
    """The trunk of the second network of the project's notes, as it is written there."""

    def __init__(self, features: nn.Sequential) -> None:
        super().__init__()
        self.ranges = ((0, 5), (5, 10), (10, 17), (17, 24), (24, 31))
        self.features = features

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        output = {}
        for idx in range(len(self.ranges)):
            for layer in range(self.ranges[idx][0], self.ranges[idx][1]):
                x = self.features[layer](x)
            output[f"x{idx + 1}"] = x
        return output


class _NotesFCNs(nn.Module):
    """The second network of the project's notes, as it is written there."""

    def __init__(self, pretrained_net: nn.Module, n_class: int, w: int = 64) -> None:
        super().__init__()
        self.pretrained_net = pretrained_net
        self.relu = nn.ReLU(inplace=True)
        widths = [8 * w, 8 * w, 4 * w, 2 * w, w, w // 2]
        for step, (before, after) in enumerate(pairwise(widths), start=1):
            deconv = nn.ConvTranspose2d(
                before, after, kernel_size=3, stride=2, padding=1, dilation=1, output_padding=1
            )
            self.add_module(f"deconv{step}", deconv)
            self.add_module(f"bn{step}", nn.BatchNorm2d(after))
        self.classifier = nn.Conv2d(w // 2, n_class, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output = self.pretrained_net(x)
        x5 = output["x5"]
        x4 = output["x4"]
        x3 = output["x3"]
        x2 = output["x2"]
        x1 = output["x1"]
        score = self.bn1(self.relu(self.deconv1(x5)))
        score = score + x4
        score = self.bn2(self.relu(self.deconv2(score)))
        score = score + x3
        score = self.bn3(self.relu(self.deconv3(score)))
        score = score + x2
        score = self.bn4(self.relu(self.deconv4(score)))
        score = score + x1
        score = self.bn5(self.relu(self.deconv5(score)))
        return self.classifier(score)


def _notes_vgg16(n_class: int, width: int) -> _NotesFCNs:
    """Put the decoder on torchvision's VGG16, which has as many channels as are asked for."""
    if width == 64:
        features = vgg16(weights=None, init_weights=False).features
    else:
        w = width
        channels = [w, w, "M", 2 * w, 2 * w, "M", *[4 * w] * 3, "M", *([8 * w] * 3 + ["M"]) * 2]
        features = make_layers(channels)
    return _NotesFCNs(_NotesVGG16(features), n_class, width)


def _renamed(notes: _NotesFCNs) -> dict[str, torch.Tensor]:
    """Count the layers of VGG16 from the beginning of each block."""
    renamed = {}
    for name, tensor in notes.state_dict().items():
        if name.startswith("pretrained_net.features."):
            index, kind = name.removeprefix("pretrained_net.features.").split(".")
            ranges = notes.pretrained_net.ranges
            block = next(b for b, (first, last) in enumerate(ranges) if first <= int(index) < last)
            renamed[f"block{block + 1}.{int(index) - ranges[block][0]}.{kind}"] = tensor
        else:
            renamed[name] = tensor
    return renamed


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (160, 32)])
@pytest.mark.parametrize("mode", ["evaluation", "training"])
@torch.no_grad()
def test_it_is_the_network_of_the_notes(mode: str, size: tuple[int, int]) -> None:
    """With the same weights both networks say the same, at sizes that theirs runs at."""
    notes = _Notes(5, 8).train(mode == "training")
    draw_everything(notes)
    network = FCNAllSkips(5, width=8).train(mode == "training")
    network.load_state_dict(notes.state_dict())
    images = draw_images(2, 3, *size)
    expected = notes(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (160, 32)])
@pytest.mark.parametrize("mode", ["evaluation", "training"])
@torch.no_grad()
def test_it_is_the_network_of_the_notes_on_vgg16(mode: str, size: tuple[int, int]) -> None:
    """With the same weights both networks on VGG16 say the same, at sizes that theirs runs at."""
    notes = make_drawn(lambda: _notes_vgg16(5, 8)).train(mode == "training")
    network = build("fcn_all_skips_vgg16", 5, width=8).train(mode == "training")
    network.load_state_dict(_renamed(notes))
    images = draw_images(2, 3, *size)
    expected = notes(images)
    assert expected.std() > 0.1
    assert_scores_equal(network(images), expected)


@torch.no_grad()
def test_it_is_the_network_of_the_notes_on_vgg16_at_full_width() -> None:
    """So it is at the original width, on torchvision's own VGG16."""
    notes = make_drawn(lambda: _notes_vgg16(2, 64))
    with torch.device("meta"):
        network = build("fcn_all_skips_vgg16", 2).eval()
    network.load_state_dict(_renamed(notes), assign=True)
    images = draw_images(1, 3, 32, 64)
    assert_scores_equal(network(images), notes(images))


def test_on_vgg16_it_has_as_many_parameters_as_published() -> None:
    """With 21 classes the one on VGG16 has 18,644,373 parameters, as that of the notes has."""
    with torch.device("meta"):
        networks = (build("fcn_all_skips_vgg16", 21), _notes_vgg16(21, 64))
    numbers = [sum(parameter.numel() for parameter in network.parameters()) for network in networks]
    assert numbers == [18_644_373] * 2


@pytest.mark.parametrize(("name", "pixels"), [("fcn_all_skips", 156), ("fcn_all_skips_vgg16", 212)])
def test_its_geometry_is_that_of_its_layers(name: str, pixels: int) -> None:
    """Its coarsest layer looks at 156 or, on VGG16, 212 pixels at stride 32."""
    network = build(name, 2, width=2)
    assert (network.receptive_field, network.stride, network.smallest) == (pixels, 32, 1)


def test_at_full_width_it_has_as_many_parameters() -> None:
    """At width 64 with 2 classes, the default of the notes, the numbers of parameters agree."""
    with torch.device("meta"):
        numbers = [
            sum(parameter.numel() for parameter in network.parameters())
            for network in (FCNAllSkips(2), _Notes(2))
        ]
    assert numbers == [13_334_050] * 2


_SIZES = [(1, 1), (1, 2), (2, 1), (3, 5), (31, 33), (32, 64), (33, 31), (17, 80), (1, 200)]


@pytest.mark.parametrize("size", _SIZES)
@pytest.mark.parametrize("name", ["fcn_all_skips", "fcn_all_skips_vgg16"])
@torch.no_grad()
def test_any_size_gives_scores_at_its_size(name: str, size: tuple[int, int]) -> None:
    """Images of every size from a single pixel get a finite score per class and pixel."""
    network = make_drawn(lambda: build(name, 5, width=4))
    scores = network(draw_images(2, 3, *size))
    assert scores.shape == (2, 5, *size)
    assert scores.isfinite().all()


@torch.no_grad()
def test_an_image_does_not_depend_on_its_neighbours() -> None:
    """In a batch every image gets the scores that it gets alone."""
    network = FCNAllSkips(5, width=4).eval()
    draw_everything(network)
    images = draw_images(3, 3, 37, 50)
    together = network(images)
    for image, scores in zip(images, together, strict=True):
        torch.testing.assert_close(network(image[None])[0], scores, rtol=1e-5, atol=1e-5)


def test_the_width_scales_every_layer() -> None:
    """A network of an eighth of the width has an eighth of the channels, but for its ends."""
    with torch.device("meta"):
        wide, narrow = (FCNAllSkips(5, width=width).state_dict() for width in (64, 8))
    ends = {("block1.0.weight", 1), ("classifier.weight", 0), ("classifier.bias", 0)}
    kernels = {2, 3}
    for name, tensor in wide.items():
        expected = [
            size if (name, place) in ends or place in kernels else size // 8
            for place, size in enumerate(tensor.shape)
        ]
        assert list(narrow[name].shape) == expected, name


@torch.no_grad()
def test_images_may_have_other_channels() -> None:
    """The number of channels of the input is an argument."""
    network = FCNAllSkips(2, width=4, in_channels=1).eval()
    assert network(draw_images(1, 1, 8, 9)).shape == (1, 2, 8, 9)


def test_every_parameter_learns() -> None:
    """The gradient of a loss reaches every parameter: no layer is beside the path."""
    network = FCNAllSkips(3, width=4)
    network(draw_images(2, 3, 64, 64)).square().mean().backward()
    idle = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert idle == []
