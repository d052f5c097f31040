"""How much memory labelling takes, and work that may exceed it.

For CPUs: a GPU raises a clean error when it is out of memory. Here what is too much can end the
process (the kernel kills it, or oneDNN does not look at what it was not given), and whoever
restarts it meets the same picture again. So what fits is computed before.

Tensor names: N batch, C channels, H and W pixels.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fcn.short_memory import tells_of_short_memory

_Result = TypeVar("_Result")

# oneDNN keeps rearranged copies of what it works on, the allocator freed pieces.
_WORKSPACE = 2
# Of the steps from scores to counts, per pixel: float64 confidences, int64 classes and bins.
_LABEL_BYTES = 64
_SCORE_COPIES = 3
_FLOAT_BYTES = 4


def if_it_fits(
    work: Callable[..., _Result], *arguments: object, smallest: bool = False
) -> _Result | None:
    """Do some work; None if there is no memory for it.

    Args:
        work: To do.
        arguments: The arguments of the work.
        smallest: Whether there is no smaller piece of it: what may be want of memory, and may be
            another error, is the error then.
    """
    try:
        return work(*arguments)
    except (torch.OutOfMemoryError, MemoryError):
        pass
    except RuntimeError as error:
        if not tells_of_short_memory(str(error), smallest=smallest):
            raise
    # Outside of the handlers, so that the failed attempt's tensors are free again.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


class MemoryEstimate:
    """What labelling takes, on the safe side: twice what a network's tensors hold at a time."""

    def __init__(
        self, network: nn.Module, in_channels: int, num_classes: int, scales: Sequence[float]
    ) -> None:
        """Take the network's shapes.

        Args:
            network: As it is.
            in_channels: Of its input.
            num_classes: Number of classes of its scores.
            scales: At which images are scored.
        """
        self._network = network
        self._in_channels = in_channels
        self._pixel_bytes = _LABEL_BYTES + _SCORE_COPIES * _FLOAT_BYTES * num_classes
        self._scales = scales
        tensors = [*network.parameters(), *network.buffers()]
        # oneDNN rearranges weights too, one layer's at a time.
        self._weight_bytes = max((tensor.nbytes for tensor in tensors), default=0)
        self._activations: dict[tuple[int, int], int] = {}

    def num_bytes(self, number: int, height: int, width: int) -> int:
        """Estimate the bytes for a batch.

        Args:
            number: Images.
            height: Of each, in pixels.
            width: Likewise.
        """
        sizes = ((int(height * scale) + 1, int(width * scale) + 1) for scale in self._scales)
        activations = max(self._of_tensors(size) for size in sizes)
        per_image = _WORKSPACE * activations + self._pixel_bytes * height * width
        return number * per_image + self._weight_bytes

    def _of_tensors(self, size: tuple[int, int]) -> int:
        """Run the network on PyTorch's `meta` device, which computes sizes only."""
        if size not in self._activations:
            named = [*self._network.named_parameters(), *self._network.named_buffers()]
            shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in named}
            images_NCHW = torch.empty(1, self._in_channels, *size, device="meta")
            with torch.no_grad(), _LiveBytes() as live:
                torch.func.functional_call(self._network, shapes, (images_NCHW,))
            self._activations[size] = live.peak
        return self._activations[size]


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch's
    """Counts the bytes of tensors that are alive at a time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # PyTorch's
        self.peak = self._now = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation and count what it has allocated."""
        given = func(*args, **(kwargs or {}))
        # A result with alias_info is a view of an argument, or an argument changed in place.
        fresh = [returned.alias_info is None for returned in func._schema.returns]  # type: ignore[attr-defined]  # noqa: SLF001 - PyTorch has no other name for it
        if all(fresh):
            for tensor in tree_leaves(given):
                if isinstance(tensor, torch.Tensor):
                    self._add(tensor.nbytes)
                    weakref.finalize(tensor, self._add, -tensor.nbytes)
        return given

    def _add(self, num_bytes: int) -> None:
        self._now += num_bytes
        self.peak = max(self.peak, self._now)
