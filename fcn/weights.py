"""Checkpoints as tensors: build the network of a record and fill it, completely or not at all."""

import dataclasses
import hashlib

import safetensors
import safetensors.torch
import torch
from torch import nn

from fcn.checkpoint import Checkpoint, CheckpointError
from fcn.models import build

_MAX_SHOWN = 10


def load(record: Checkpoint, data: bytes) -> nn.Module:
    """Build a network and load its weights, in evaluation mode.

    Args:
        record: The checkpoint record.
        data: The safetensors file; no code is run in reading it.

    Raises:
        CheckpointError: The SHA-256 differs from the record's, the file is no safetensors file,
            or tensors are missing, surplus, of another shape or not finite.
    """
    found = hashlib.sha256(data).hexdigest()
    if found != record.weights_sha256:
        raise CheckpointError(
            f"the weights have sha256 {found}, their record says {record.weights_sha256}; "
            "copy both files again, or train or import the checkpoint again"
        )
    try:
        tensors = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"no readable safetensors file: {error}") from error
    network = _build(record)
    _check(network.state_dict(), tensors)
    network.load_state_dict(tensors)
    return network.eval()


def random_network(record: Checkpoint, seed: int) -> nn.Module:
    """Build an untrained network in evaluation mode; the same seed gives the same weights.

    Args:
        record: Which network, and its classes.
        seed: Of the network's initialisation.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _build(record).eval()


def save(record: Checkpoint, network: nn.Module) -> tuple[Checkpoint, bytes]:
    """Serialise weights.

    Args:
        record: Describes the network; its `weights_sha256` is replaced.
        network: The weights.

    Returns:
        The completed record and the safetensors file, to be stored side by side.
    """
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    data = safetensors.torch.save(tensors)
    return dataclasses.replace(record, weights_sha256=hashlib.sha256(data).hexdigest()), data


def _build(record: Checkpoint) -> nn.Module:
    try:
        return build(
            record.network, record.num_classes, width=record.width, in_channels=record.in_channels
        )
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def _check(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    breaks = [f"missing: {name}" for name in expected if name not in found]
    breaks += [f"surplus: {name}" for name in found if name not in expected]
    breaks += [
        f"{name} has shape {tuple(found[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    breaks += [
        f"{name} holds NaN or infinity"
        for name, tensor in found.items()
        if tensor.is_floating_point() and not tensor.isfinite().all()
    ]
    if breaks:
        more = f"; and {len(breaks) - _MAX_SHOWN} more" if len(breaks) > _MAX_SHOWN else ""
        raise CheckpointError(
            "the weights do not fit the network of their record: "
            + "; ".join(breaks[:_MAX_SHOWN])
            + more
        )
