"""Layers as a GPU computes them fastest where no gradients are wanted; elsewhere PyTorch's own.

What each of them replaces is what CPUs and training run, and `torch.compile`, but for the large
kernels. Figures: docs/performance.md.
"""

import functools
import logging

import torch
import torch.nn.functional as F
from torch import nn

from fcn.kernels import find_kernels
from fcn.short_memory import tells_of_short_memory

_log = logging.getLogger(__name__)

# cuDNN 9.19 computes fc6 (7x7, on maps of 12x16) in bf16 without the matrix units, at a tenth of
# what a matrix product of the same numbers takes. 3x3 convolutions are what it is good at.
_LARGEST_KERNEL = 3
# conv1_1 takes 480 us with 3 channels, 230 with 16 of which 13 are zeros (8 images of 375x500).
_FEWEST_CHANNELS = 16
# Patches are copies of the features, 49 of them for 7x7: of so many places at a time (0.2 GB).
_PATCHES = 4096


def conv_relu(conv: nn.Conv2d, features_NCHW: torch.Tensor) -> torch.Tensor:
    """Convolve and apply ReLU.

    Args:
        conv: With a bias.
        features_NCHW: Its input.
    """
    is_large = max(conv.kernel_size) > _LARGEST_KERNEL and is_dense(conv)
    if is_large and is_lowered(conv, features_NCHW):
        return F.relu(as_product(conv, features_NCHW), inplace=True)
    if not _is_fused(conv, features_NCHW):
        return F.relu(conv(features_NCHW), inplace=True)
    features_NCHW, weight = _widened(features_NCHW), _widened(conv.weight)
    return torch.cudnn_convolution_relu(
        features_NCHW,
        weight,
        conv.bias,
        conv.stride,
        paddings(conv),
        conv.dilation,
        conv.groups,
    )


def conv_add_relu(
    conv: nn.Conv2d, features_NCHW: torch.Tensor, added_NCHW: torch.Tensor
) -> torch.Tensor:
    """Convolve, add other features and apply ReLU.

    Args:
        conv: With a bias.
        features_NCHW: Its input.
        added_NCHW: Has the shape of its output.
    """
    if not _is_fused(conv, features_NCHW):
        return F.relu(conv(features_NCHW) + added_NCHW, inplace=True)
    return torch.cudnn_convolution_add_relu(
        features_NCHW,
        conv.weight,
        added_NCHW,
        1.0,
        conv.bias,
        conv.stride,
        paddings(conv),
        conv.dilation,
        conv.groups,
    )


def _widened(tensor_NCHW: torch.Tensor) -> torch.Tensor:
    """Add channels of zeros to pixels, or to kernels that look at pixels."""
    missing = _FEWEST_CHANNELS - tensor_NCHW.shape[1]
    if missing <= 0:
        return tensor_NCHW
    return F.pad(tensor_NCHW.permute(0, 2, 3, 1), (0, missing)).permute(0, 3, 1, 2)


def pool_2x2(pool: nn.MaxPool2d, features_NCHW: torch.Tensor) -> torch.Tensor:
    """Apply a 2x2 max pool of stride 2 that rounds up.

    Args:
        pool: As it is otherwise.
        features_NCHW: Its input.
    """
    if (
        torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or not features_NCHW.is_contiguous(memory_format=torch.channels_last)
        or not (kernels := find_kernels(features_NCHW.device))
    ):
        pooled: torch.Tensor = pool(features_NCHW)
        return pooled
    return kernels.max_pool(features_NCHW)


def is_lowered(conv: nn.Conv2d, features_NCHW: torch.Tensor) -> bool:
    """Return whether a convolution is one of a network that only labels, on a GPU."""
    return (
        features_NCHW.is_cuda
        and features_NCHW.dtype == conv.weight.dtype
        and conv.bias is not None
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cuda")
    )


def _is_fused(conv: nn.Conv2d, features_NCHW: torch.Tensor) -> bool:
    """Return whether cuDNN computes a convolution together with what follows."""
    return (
        is_lowered(conv, features_NCHW)
        and not torch.compiler.is_compiling()
        and _has_fusion(features_NCHW.device, features_NCHW.dtype)
    )


@functools.cache
def _has_fusion(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether cuDNN fuses on a card, by trying it; where it does not, the log says so."""
    channels = _FEWEST_CHANNELS
    given = {"device": device, "dtype": dtype}
    features = torch.ones(1, channels, 4, 4, **given).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # mypy
    weight = torch.ones(channels, channels, 3, 3, **given).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # mypy
    bias = torch.ones(channels, **given)  # type: ignore[call-overload]  # mypy
    ones = (1, 1)
    try:
        torch.cudnn_convolution_relu(features, weight, bias, ones, ones, ones, 1)
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or tells_of_short_memory(str(error)):
            raise
        _log.warning("cuDNN fuses no convolution in %s here (%s); ReLUs pass alone", dtype, error)
        return False
    return True


def is_dense(conv: nn.Conv2d) -> bool:
    """Return whether a convolution looks at every place, with all channels."""
    return conv.stride == conv.dilation == (1, 1) and conv.groups == 1


def paddings(conv: nn.Conv2d) -> tuple[int, ...]:
    """Return how many rows and columns of zeros a convolution adds on each side."""
    assert not isinstance(conv.padding, str), "no convolution here is padded by a word"
    return conv.padding


def as_product(conv: nn.Conv2d, features_NCHW: torch.Tensor) -> torch.Tensor:
    """Compute a dense convolution as a matrix product of patches and weights.

    Args:
        conv: Of stride and dilation 1 and one group, its weights channels last.
        features_NCHW: Its input, channels last.

    Returns:
        Its output, channels last.
    """
    (rows, columns), (pad_rows, pad_columns) = conv.kernel_size, paddings(conv)
    features_NHWC = features_NCHW.permute(0, 2, 3, 1)
    if pad_rows or pad_columns:
        features_NHWC = F.pad(features_NHWC, (0, 0, pad_columns, pad_columns, pad_rows, pad_rows))
    matrix = conv.weight.permute(0, 2, 3, 1).reshape(conv.out_channels, -1)
    if rows == columns == 1:
        return F.linear(features_NHWC, matrix, conv.bias).permute(0, 3, 1, 2)
    # (N, H, W, C, rows, columns), without a copy.
    windows: torch.Tensor = features_NHWC.unfold(1, rows, 1).unfold(2, columns, 1)
    images = max(1, _PATCHES // (windows.shape[1] * windows.shape[2]))
    found = [
        F.linear(part.permute(0, 1, 2, 4, 5, 3).flatten(3), matrix, conv.bias)
        for part in torch.split(windows, images)
    ]
    return (found[0] if len(found) == 1 else torch.cat(found)).permute(0, 3, 1, 2)


class ConvReLU(nn.Module):
    """A convolution and the ReLU behind it."""

    def __init__(self, conv: nn.Conv2d) -> None:
        """Take a convolution.

        Args:
            conv: With a bias.
        """
        super().__init__()
        self.conv = conv

    def forward(self, features_NCHW: torch.Tensor) -> torch.Tensor:
        """Compute both; see `conv_relu`."""
        return conv_relu(self.conv, features_NCHW)


class Pool2x2(nn.Module):
    """A 2x2 max pool; see `pool_2x2`."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        """Take a pool.

        Args:
            pool: Of stride 2, rounding up.
        """
        super().__init__()
        self.pool = pool

    def forward(self, features_NCHW: torch.Tensor) -> torch.Tensor:
        """Apply it."""
        return pool_2x2(self.pool, features_NCHW)
