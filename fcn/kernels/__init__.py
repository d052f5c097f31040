"""Kernels for GPUs, in Triton: what PyTorch's operations pass over memory for several times.

Each gives what its plain form gives, which stands where it is used, and is compared with it by
Triton's interpreter on a CPU (tests/fcn/test_kernels.py) and on a GPU (tests/gpu).
"""

import functools
import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import torch

from fcn.short_memory import tells_of_short_memory

_log = logging.getLogger(__name__)


class Kernels(NamedTuple):
    """What there is on GPUs, each named after its module's function."""

    max_pool: Callable[[torch.Tensor], torch.Tensor]
    label_in_one_pass: Callable[..., Any]


@functools.cache
def find_kernels(device: torch.device) -> Kernels | None:
    """Return the kernels for a device; where they should run and don't, the log says why.

    Args:
        device: Where the tensors are.
    """
    if device.type != "cuda":
        return None
    try:
        # Triton is there for GPUs only, and these are written in it.
        label_in_one_pass = import_module("fcn.kernels.label").label_in_one_pass
        kernels = Kernels(import_module("fcn.kernels.pool").max_pool, label_in_one_pass)
        _try(kernels, device)
    except torch.OutOfMemoryError:
        # Nothing is said about Triton by that: smaller batches are tried, and it again with them.
        raise
    # Triton has classes of its own, and so have the compilers that it calls.
    except Exception as error:
        if tells_of_short_memory(str(error)):
            raise torch.OutOfMemoryError(str(error)) from error
        _log.warning(
            "Triton can't be used here (%s); PyTorch's own operations take its place, and small "
            "networks label more slowly. It needs a C compiler and Python's headers",
            error,
        )
        return None
    return kernels


def _try(kernels: Kernels, device: torch.device) -> None:
    """Compile and run each once, in a form that networks need."""
    ones = torch.ones(1, 8, 2, 2, device=device)
    with torch.inference_mode():
        kernels.max_pool(ones.to(memory_format=torch.channels_last))
        for below in (0.0, 0.5):
            kernels.label_in_one_pass(ones, 1 << 20, with_confidence=False, ignore_below=below)
