"""The networks again, plain and slow: functions of a state dict, from the published definitions.

They share no line with the product: paddings, kernels and crops are the numbers of the published
prototxt files, and every upsampling is a dense transposed convolution.
"""

from collections.abc import Callable
from functools import cache
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import googlenet

Weights = dict[str, torch.Tensor]
Module = TypeVar("Module", bound=nn.Module)

# (batch, height, width): 20 sizes from 1 to 700 pixels, most of them odd and not square.
SIZES = [
    (1, 1, 1),
    (3, 1, 2),
    (2, 3, 2),
    (3, 7, 5),
    (2, 31, 33),
    (3, 32, 32),
    (2, 33, 31),
    (1, 64, 96),
    (3, 65, 63),
    (2, 97, 128),
    (1, 127, 129),
    (2, 160, 161),
    (1, 199, 37),
    (1, 255, 257),
    (1, 223, 500),
    (2, 375, 101),
    (1, 421, 333),
    (1, 1, 700),
    (1, 700, 1),
    (1, 699, 487),
]


def make_drawn(make: Callable[[], Module]) -> Module:
    """Make a network for evaluation whose weights are all drawn, and not initialised before."""
    with torch.device("meta"):
        network = make()
    network = network.to_empty(device="cpu").eval()
    draw_everything(network)
    return network


def draw_everything(network: nn.Module) -> None:
    """Give every tensor, scores and running statistics among them, values of its own."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if not tensor.is_floating_point():
                tensor.zero_()
                continue
            if tensor.dim() == 4:
                low, high = -((6 / tensor[0].numel()) ** 0.5), (6 / tensor[0].numel()) ** 0.5
            elif name.endswith("running_var"):
                low, high = 0.5, 1.5
            elif f"{name.removesuffix('weight')}running_var" in network.state_dict():
                low, high = 0.6, 1.4
            else:
                low, high = -0.2, 0.2
            tensor.uniform_(low, high, generator=generator)


def draw_images(*shape: int, scale: float = 1.0, seed: int = 1) -> torch.Tensor:
    """Make images of patches of colour under noise: they vary at every distance."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(shape)
    for pixels in (1, 16, 128):
        coarse = [-(-size // pixels) for size in shape[-2:]]
        drawn = torch.randn(*shape[:-2], *coarse, generator=generator)
        patches = drawn.repeat_interleave(pixels, -2).repeat_interleave(pixels, -1)
        images += patches[..., : shape[-2], : shape[-1]]
    return images * scale


def assert_scores_equal(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Demand that scores differ by 1e-4 of the largest at most."""
    assert actual.shape == expected.shape
    largest = expected.abs().max()
    assert largest.isfinite()
    assert largest > 0
    assert (actual - expected).abs().max() <= 1e-4 * largest


@cache
def bilinear_filler(kernel_size: int) -> torch.Tensor:
    """Make one bilinear kernel, number by number."""
    factor = (kernel_size + 1) // 2
    centre = factor - 1 if kernel_size % 2 == 1 else factor - 0.5
    kernel = torch.zeros(kernel_size, kernel_size)
    for i in range(kernel_size):
        for j in range(kernel_size):
            kernel[i, j] = (1 - abs(i - centre) / factor) * (1 - abs(j - centre) / factor)
    return kernel


def deconvolve(scores: torch.Tensor, kernel_size: int, stride: int) -> torch.Tensor:
    """Upsample with a dense kernel whose diagonal is bilinear."""
    channels = scores.shape[1]
    kernel = torch.zeros(channels, channels, kernel_size, kernel_size)
    for channel in range(channels):
        kernel[channel, channel] = bilinear_filler(kernel_size)
    return F.conv_transpose2d(scores, kernel.to(scores), stride=stride)


def crop(scores: torch.Tensor, like: torch.Tensor, first: int) -> torch.Tensor:
    """Cut from `first` on what is as large as another; it is all there."""
    height, width = like.shape[-2:]
    cut = scores[..., first : first + height, first : first + width]
    assert cut.shape[-2:] == like.shape[-2:]
    return cut


def conv(weights: Weights, name: str, x: torch.Tensor, **choices: int) -> torch.Tensor:
    """Convolve with a layer's weight and bias."""
    return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], **choices)


def _vgg16(weights: Weights, x: torch.Tensor, pad_conv1_1: int, pad_fc6: int) -> list[torch.Tensor]:
    """Return pool3, pool4 and score_fr."""
    pools = []
    for block, number in enumerate((2, 2, 3, 3, 3), start=1):
        for index in range(1, number + 1):
            padding = pad_conv1_1 if (block, index) == (1, 1) else 1
            x = F.relu(conv(weights, f"conv{block}_{index}", x, padding=padding))
        x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        pools.append(x)
    x = F.relu(conv(weights, "fc6", x, padding=pad_fc6))
    x = F.relu(conv(weights, "fc7", x))
    return [pools[2], pools[3], conv(weights, "score_fr", x)]


def fcn32s(weights: Weights, images: torch.Tensor) -> torch.Tensor:
    """voc-fcn32s."""
    _, _, score_fr = _vgg16(weights, images, 100, 0)
    return crop(deconvolve(score_fr, 64, 32), images, 19)


def fcn16s(weights: Weights, images: torch.Tensor) -> torch.Tensor:
    """voc-fcn16s."""
    _, pool4, score_fr = _vgg16(weights, images, 100, 0)
    upscore2 = deconvolve(score_fr, 4, 2)
    fuse_pool4 = upscore2 + crop(conv(weights, "score_pool4", pool4), upscore2, 5)
    return crop(deconvolve(fuse_pool4, 32, 16), images, 27)


def fcn8s(
    weights: Weights, images: torch.Tensor, scale_pool4: float = 1, scale_pool3: float = 1
) -> torch.Tensor:
    """voc-fcn8s, and with scales voc-fcn8s-atonce."""
    pool3, pool4, score_fr = _vgg16(weights, images, 100, 0)
    upscore2 = deconvolve(score_fr, 4, 2)
    score_pool4 = conv(weights, "score_pool4", pool4 * scale_pool4)
    fuse_pool4 = upscore2 + crop(score_pool4, upscore2, 5)
    upscore_pool4 = deconvolve(fuse_pool4, 4, 2)
    score_pool3 = conv(weights, "score_pool3", pool3 * scale_pool3)
    fuse_pool3 = upscore_pool4 + crop(score_pool3, upscore_pool4, 9)
    return crop(deconvolve(fuse_pool3, 16, 8), images, 31)


def fcn8s_at_once(weights: Weights, images: torch.Tensor) -> torch.Tensor:
    """voc-fcn8s-atonce."""
    return fcn8s(weights, images, 0.01, 0.0001)


def fcn32s_tight(weights: Weights, images: torch.Tensor) -> torch.Tensor:
    """Build FCN-32s with paddings that keep sizes."""
    _, _, score_fr = _vgg16(weights, images, 1, 3)
    return crop(deconvolve(score_fr, 64, 32), images, 16)


def fcn16s_tight(weights: Weights, images: torch.Tensor) -> torch.Tensor:
    """Build FCN-16s with paddings that keep sizes."""
    _, pool4, score_fr = _vgg16(weights, images, 1, 3)
    score_pool4 = conv(weights, "score_pool4", pool4)
    fuse_pool4 = crop(deconvolve(score_fr, 4, 2), score_pool4, 1) + score_pool4
    return crop(deconvolve(fuse_pool4, 32, 16), images, 8)


def fcn8s_tight(
    weights: Weights, images: torch.Tensor, scale_pool4: float = 1, scale_pool3: float = 1
) -> torch.Tensor:
    """Build FCN-8s with paddings that keep sizes."""
    pool3, pool4, score_fr = _vgg16(weights, images, 1, 3)
    score_pool4 = conv(weights, "score_pool4", pool4 * scale_pool4)
    fuse_pool4 = crop(deconvolve(score_fr, 4, 2), score_pool4, 1) + score_pool4
    score_pool3 = conv(weights, "score_pool3", pool3 * scale_pool3)
    fuse_pool3 = crop(deconvolve(fuse_pool4, 4, 2), score_pool3, 1) + score_pool3
    return crop(deconvolve(fuse_pool3, 16, 8), images, 4)


def fcn8s_at_once_tight(weights: Weights, images: torch.Tensor) -> torch.Tensor:
    """Build FCN-8s at once with paddings that keep sizes."""
    return fcn8s_tight(weights, images, 0.01, 0.0001)


def _normalise(x: torch.Tensor) -> torch.Tensor:
    """Divide by the activity of the five channels around each (Caffe's LRN)."""
    squares = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
    around = sum(squares[:, shift : shift + x.shape[1]] for shift in range(5))
    return x / (1 + 1e-4 / 5 * around) ** 0.75


def fcn_alexnet(
    weights: Weights,
    images: torch.Tensor,
    *,
    groups: int = 2,
    tight: bool = False,
) -> torch.Tensor:
    """voc-fcn-alexnet; without groups and normalisation on the one tower that torchvision has."""
    norm = _normalise if groups == 2 else nn.Identity()
    x = images
    if tight:
        # Of what is smaller than 29 pixels fc6 would not find its 6 x 6 features.
        x = F.pad(x, (0, max(0, 29 - x.shape[-1]), 0, max(0, 29 - x.shape[-2])))
    x = F.relu(conv(weights, "conv1", x, stride=4, padding=5 if tight else 100))
    x = norm(F.max_pool2d(x, 3, 2, ceil_mode=True))
    x = F.relu(conv(weights, "conv2", x, padding=2, groups=groups))
    x = norm(F.max_pool2d(x, 3, 2, ceil_mode=True))
    x = F.relu(conv(weights, "conv3", x, padding=1))
    x = F.relu(conv(weights, "conv4", x, padding=1, groups=groups))
    x = F.relu(conv(weights, "conv5", x, padding=1, groups=groups))
    x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    x = F.relu(conv(weights, "fc6", x, padding=3 if tight else 0))
    x = F.relu(conv(weights, "fc7", x))
    score_fr = conv(weights, "score_fr", x)
    return crop(deconvolve(score_fr, 63, 32), images, 19 if tight else 18)


def fcn_googlenet(weights: Weights, images: torch.Tensor) -> torch.Tensor:
    """Put scores on torchvision's GoogLeNet without its average pool."""
    with torch.device("meta"):
        trunk = googlenet(weights=None, init_weights=False, aux_logits=False).eval()
    trunk.fc = nn.Identity()
    prefix = "trunk."
    own = {name.removeprefix(prefix): weights[name] for name in weights if name.startswith(prefix)}
    trunk.load_state_dict(own, assign=True)
    # Of what is smaller than 15 pixels the pools would leave nothing.
    x = F.pad(images, (0, max(0, 15 - images.shape[-1]), 0, max(0, 15 - images.shape[-2])))
    x = trunk.maxpool2(trunk.conv3(trunk.conv2(trunk.maxpool1(trunk.conv1(x)))))
    x = trunk.maxpool3(trunk.inception3b(trunk.inception3a(x)))
    for name in ("4a", "4b", "4c", "4d", "4e"):
        x = getattr(trunk, f"inception{name}")(x)
    x = trunk.inception5b(trunk.inception5a(trunk.maxpool4(x)))
    return crop(deconvolve(conv(weights, "score_fr", x), 63, 32), images, 9)
