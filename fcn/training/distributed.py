"""Sums over the workers of a distributed training; alone, a worker is all.

The process group is whoever starts the workers' (Ray Train's: gloo on CPUs, NCCL on GPUs).
"""

import torch
import torch.distributed as dist


def world_size() -> int:
    """Number of workers."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this worker, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def sum_over_workers(tensor: torch.Tensor) -> torch.Tensor:
    """Add a tensor up over all workers, in place; all of them have to call it.

    Args:
        tensor: Of the same shape everywhere, on the device that the process group takes.

    Returns:
        The same tensor.
    """
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor
