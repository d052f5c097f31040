"""Batch norms over the workers of a distributed training; alone, a worker's own."""

from typing import Any

import torch
from torch import nn

from fcn.training.distributed import sum_over_workers, world_size


class CrossWorkerBatchNorm(nn.BatchNorm2d):
    """Batch norm whose mean and variance are those of the images of all workers.

    `torch.nn.SyncBatchNorm` does this on GPUs and refuses CPUs.
    """

    def forward(self, features_NCHW: torch.Tensor) -> torch.Tensor:
        """Normalise; in evaluation, or alone, as `BatchNorm2d`.

        Args:
            features_NCHW: As many images as every other worker has, or not.
        """
        if not self.training or world_size() == 1:
            return super().forward(features_NCHW)
        features = features_NCHW.float()
        axes = (0, 2, 3)
        number = sum_over_workers(torch.tensor(features.numel() / features.shape[1]))
        mean = _shared_sum(features.sum(axes)) / number
        centred = features - mean[:, None, None]
        # From centred values: a difference of large sums would lose what it is after.
        variance = _shared_sum(centred.square().sum(axes)) / number
        with torch.no_grad():
            self._track(mean, variance * number / (number - 1))
        scale = self.weight * (variance + self.eps).rsqrt()
        normalised: torch.Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        # Half precision goes on in half precision, as PyTorch's does.
        return normalised.to(features_NCHW.dtype)

    def _track(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        assert self.running_mean is not None, "made from a batch norm that tracks"
        assert self.running_var is not None, "made from a batch norm that tracks"
        assert self.num_batches_tracked is not None, "made from a batch norm that tracks"
        assert self.momentum is not None, "made from a batch norm with a momentum"
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class _SharedSum(torch.autograd.Function):
    """Adds a tensor up over all workers; gradients flow back to all of them."""

    @staticmethod
    def forward(_: Any, tensor: torch.Tensor) -> torch.Tensor:
        return sum_over_workers(tensor.clone())

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
        return sum_over_workers(gradient.clone())


def _shared_sum(tensor: torch.Tensor) -> torch.Tensor:
    total: torch.Tensor = _SharedSum.apply(tensor)
    return total


def share_batch_norms(network: nn.Module, device: torch.device) -> nn.Module:
    """Let every batch norm of a network see the images of all workers.

    Args:
        network: Changed in place; tensors and their names stay.
        device: The device of the network.
    """
    if world_size() == 1:
        return network
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]  # PyTorch's
        return converted
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, _shared(child))
    return network


def _shared(norm: nn.BatchNorm2d) -> CrossWorkerBatchNorm:
    shared = CrossWorkerBatchNorm(norm.num_features, norm.eps, norm.momentum)
    shared.load_state_dict(norm.state_dict())
    # The same parameters: frozen ones stay so.
    shared.weight, shared.bias = norm.weight, norm.bias
    return shared.train(norm.training)
