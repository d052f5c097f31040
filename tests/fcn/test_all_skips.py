"""`fcn_all_skips`: the network of the notes, for every size."""

import pytest
import torch
from torch import nn

from fcn.models.all_skips import FCNAllSkips


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


def _draw_everything(network: nn.Module) -> None:
    """Give every tensor, the running statistics among them, values of its own."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if not tensor.is_floating_point():
            continue
        drawn = torch.rand(tensor.shape, generator=generator)
        if tensor.dim() == 4:
            tensor.copy_((drawn - 0.5) * (24 / tensor[0].numel()) ** 0.5)
        else:
            tensor.copy_(drawn + 0.5 if "running_var" in name else drawn - 0.3)


def _images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (160, 32)])
@pytest.mark.parametrize("mode", ["evaluation", "training"])
@torch.no_grad()
def test_it_is_the_network_of_the_notes(mode: str, size: tuple[int, int]) -> None:
    """With the same weights both networks say the same, at sizes that theirs runs at."""
    notes = _Notes(5, 8).train(mode == "training")
    _draw_everything(notes)
    network = FCNAllSkips(5, width=8).train(mode == "training")
    network.load_state_dict(notes.state_dict())
    images = _images(2, 3, *size)
    expected = notes(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-5)


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
@torch.no_grad()
def test_any_size_gives_scores_at_its_size(size: tuple[int, int]) -> None:
    """Images of every size from a single pixel get a finite score per class and pixel."""
    network = FCNAllSkips(5, width=4).eval()
    _draw_everything(network)
    scores = network(_images(2, 3, *size))
    assert scores.shape == (2, 5, *size)
    assert scores.isfinite().all()


@torch.no_grad()
def test_an_image_does_not_depend_on_its_neighbours() -> None:
    """In a batch every image gets the scores that it gets alone."""
    network = FCNAllSkips(5, width=4).eval()
    _draw_everything(network)
    images = _images(3, 3, 37, 50)
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
    assert network(_images(1, 1, 8, 9)).shape == (1, 2, 8, 9)


def test_every_parameter_learns() -> None:
    """The gradient of a loss reaches every parameter: no layer is beside the path."""
    network = FCNAllSkips(3, width=4)
    network(_images(2, 3, 64, 64)).square().mean().backward()
    idle = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert idle == []
