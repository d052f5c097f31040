"""A network as a GPU labels with it: weights in its type, channels last, nothing computed twice."""

import copy

import torch
from torch import nn

from fcn.models.layers import as_product, is_dense, is_lowered
from fcn.models.network import Network
from fcn.upsample import LearnedUpsample

# Matrix units take numbers of channels that this divides.
_ALIGNMENT = 8


def lower(network: Network, device: torch.device, dtype: torch.dtype) -> Network:
    """Copy a network to a device, for labelling only.

    Its masks differ from the original's under autocast at most by rounding: batch norms are folded
    into convolutions where they follow one, and weights are rounded once, as autocast rounds them
    with every batch.

    Args:
        network: Whose copy is wanted; it stays as it is.
        device: Where to.
        dtype: The dtype of the convolutions' arithmetic. Batch norms keep theirs.
    """
    lowered = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    lowered.fold()
    for name, module in list(lowered.named_modules()):
        # Scores are interpolated in full precision, also by kernels that were learned.
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and not isinstance(
            module, LearnedUpsample
        ):
            module.to(dtype)
        if isinstance(module, nn.Conv2d) and _is_unaligned(module):
            lowered.set_submodule(name, _Aligned(module))
    return lowered.to(device).to(memory_format=torch.channels_last)


def _is_unaligned(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == (1, 1) and is_dense(conv) and conv.out_channels % _ALIGNMENT > 0


class _Aligned(nn.Module):
    """A 1x1 convolution with channels of zeros behind its own, which are no part of its output."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self._num_channels = conv.out_channels
        added = -conv.out_channels % _ALIGNMENT
        self.conv = nn.Conv2d(
            conv.in_channels, conv.out_channels + added, 1, device="meta", dtype=conv.weight.dtype
        )
        assert conv.bias is not None, "score layers have one"
        weight, bias = conv.weight, conv.bias
        self.conv.weight = nn.Parameter(
            torch.cat([weight, weight.new_zeros(added, *weight.shape[1:])]), requires_grad=False
        )
        self.conv.bias = nn.Parameter(torch.cat([bias, bias.new_zeros(added)]), requires_grad=False)

    def forward(self, features_NCHW: torch.Tensor) -> torch.Tensor:
        apply = as_product if is_lowered(self.conv, features_NCHW) else nn.Conv2d.__call__
        return apply(self.conv, features_NCHW)[:, : self._num_channels]
