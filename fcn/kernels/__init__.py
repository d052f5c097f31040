"""Kernels for GPUs, in Triton: what PyTorch's operations pass over memory for several times.

Each gives what its plain form gives, which stands where it is used, and is compared with it by
Triton's interpreter on a CPU (tests/fcn/test_kernels.py) and on a GPU (tests/gpu).
"""

import functools
import logging

import torch

_log = logging.getLogger(__name__)


@functools.cache
def are_usable(device: torch.device) -> bool:
    """Return whether kernels run on a device; where they should and don't, the log says why.

    Args:
        device: Where the tensors are.
    """
    if device.type != "cuda":
        return False
    try:
        from fcn.kernels.pool import max_pool  # noqa: PLC0415 - Triton is there for GPUs only

        max_pool(torch.zeros(1, 8, 2, 2, device=device).to(memory_format=torch.channels_last))
    except (ImportError, RuntimeError, OSError) as error:
        _log.warning(
            "Triton can't be used here (%s); PyTorch's own operations take its place, and small "
            "networks label more slowly. It needs a C compiler and Python's headers",
            error,
        )
        return False
    return True
