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
        max_pool = import_module("fcn.kernels.pool").max_pool
        max_pool(torch.zeros(1, 8, 2, 2, device=device).to(memory_format=torch.channels_last))
    except torch.OutOfMemoryError:
        # Nothing is said about Triton by that: smaller batches are tried, and it again with them.
        raise
    except (ImportError, RuntimeError, OSError) as error:
        _log.warning(
            "Triton can't be used here (%s); PyTorch's own operations take its place, and small "
            "networks label more slowly. It needs a C compiler and Python's headers",
            error,
        )
        return None
    return Kernels(max_pool, label_in_one_pass)
