"""Gradient checkpointing: blocks forget their activations, and compute them again for gradients.

Chen et al., "Training Deep Nets with Sublinear Memory Cost" (2016), section 3: a step runs the
blocks forward twice, and holds what lies between them and the activations of one at a time.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

_Forward = Callable[[torch.Tensor], torch.Tensor]
_Buffers = dict[str, torch.Tensor]


def recompute_blocks(network: nn.Module, blocks: str) -> None:
    """Let the blocks of a network compute their activations twice; gradients stay bit for bit.

    Args:
        network: Changed in place, but for its tensors and their names.
        blocks: Regular expression for the whole name of a block, which takes one tensor and gives
            one, and has no dropout.

    Raises:
        ValueError: No module has such a name.
    """
    found = [one for name, one in network.named_modules() if re.fullmatch(blocks, name)]
    if not found:
        raise ValueError(f"no block is called {blocks}")
    for block in found:
        # A copy of the network copies this with it: a bound method's copy is bound to the copy.
        block.forward = partial(_forward, block.forward)


def _forward(forward: _Forward, features_NCHW: torch.Tensor) -> torch.Tensor:
    if not torch.is_grad_enabled():
        return forward(features_NCHW)
    block: nn.Module = forward.__self__  # type: ignore[attr-defined]  # a bound method
    found: torch.Tensor = checkpoint(
        forward,
        features_NCHW,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (contextlib.nullcontext(), _without_tracking(block)),
    )
    return found


@contextlib.contextmanager
def _without_tracking(block: nn.Module) -> Iterator[Any]:
    """Let batch norms count in copies of their means: they have counted these images before."""
    norms = [one for one in block.modules() if isinstance(one, _BatchNorm)]
    counted = [dict(norm.named_buffers()) for norm in norms]
    _set_buffers(norms, [_copies(buffers) for buffers in counted])
    try:
        yield
    finally:
        _set_buffers(norms, counted)


def _copies(buffers: _Buffers) -> _Buffers:
    return {name: buffer.clone() for name, buffer in buffers.items()}


def _set_buffers(norms: Sequence[nn.Module], buffers: Sequence[_Buffers]) -> None:
    for norm, named in zip(norms, buffers, strict=True):
        for name, buffer in named.items():
            setattr(norm, name, buffer)
