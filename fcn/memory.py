"""How much memory a network takes, and how much a process may take.

For CPUs: a GPU says in order that it is out of memory. Here what is too much can end the process
(the kernel kills it, or oneDNN does not look at what it was not given), and whoever restarts it
meets the same picture again. So what fits is computed before.

Tensor names: N batch, C channels, H and W pixels.
"""

import copy
import resource
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_PROBE_SIDE = 512
# oneDNN keeps rearranged copies of what it works on.
_WORKSPACE = 2
# Of the steps from scores to counts: float64 confidences, int64 classes and bins, and the like.
_LABEL_BYTES = 64
_SCORE_COPIES = 3


def bytes_per_pixel(network: nn.Module, in_channels: int, num_classes: int) -> int:
    """Estimate what labelling takes per pixel of an image, on the safe side.

    The network runs on PyTorch's `meta` device, which computes sizes only.

    Args:
        network: As it is; it is copied.
        in_channels: Of its input.
        num_classes: Of its scores.
    """
    shapes_only = copy.deepcopy(network).to("meta").eval()
    images_NCHW = torch.empty(1, in_channels, _PROBE_SIDE, _PROBE_SIDE, device="meta")
    with torch.no_grad(), _LiveBytes() as live:
        shapes_only(images_NCHW)
    activations: int = _WORKSPACE * live.peak // _PROBE_SIDE**2
    return activations + _SCORE_COPIES * 4 * num_classes + _LABEL_BYTES


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


def limit_memory(num_bytes: int) -> None:
    """Let this process ask for so much more memory and no more.

    What exceeds it is an error that `Predictor` catches, so that one image gets no mask; without
    the limit the kernel kills the process, and whoever restarts it meets the image again.

    Args:
        num_bytes: Of private memory, on top of what the process has by now (Linux, RLIMIT_DATA).
    """
    with open("/proc/self/statm", encoding="ascii") as file:
        data_pages = int(file.read().split()[5])
    limit = data_pages * resource.getpagesize() + num_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
