"""Checkpoints as tensors: build the network of a record and fill it, completely or not at all.

A checkpoint is two objects side by side, `NAME.safetensors` and its record `NAME.json`
(`fcn.weights.record`). Reading runs no code from the files.
"""

import dataclasses
import hashlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import safetensors
import safetensors.torch
import torch
from torch import nn

from fcn.models import Network, build
from fcn.weights import CheckpointError
from fcn.weights.record import Checkpoint, refuse_untrained

_MAX_SHOWN = 10
# A request each, where the file is in a store.
_PART_BYTES = 32 << 20
# What the layers are called whose channels are classes.
_SCORES = ("score", "upscore", "classifier")


def restore(record: Checkpoint, data: bytes, *, allow_untrained: bool = False) -> Network:
    """Build a network and fill it with weights, in evaluation mode.

    Args:
        record: The checkpoint record.
        data: The safetensors file; no code is run in reading it.
        allow_untrained: Whether layers may hold initial values, to train from.

    Raises:
        CheckpointError: As `restore_file`.
    """
    return restore_file(record, io.BytesIO(data), allow_untrained=allow_untrained)


def restore_file(record: Checkpoint, file: IO[bytes], *, allow_untrained: bool = False) -> Network:
    """Build a network and fill it with weights, in evaluation mode.

    The file is copied into the temporary directory and mapped from there, so that the weights are
    in memory once at most, however large they are.

    Args:
        record: The checkpoint record.
        file: The safetensors file; no code is run in reading it.
        allow_untrained: Whether layers may hold initial values, to train from.

    Raises:
        CheckpointError: The SHA-256 differs from the record's, the file is no safetensors file,
            tensors are missing, surplus, of another shape or not finite, layers are untrained, or
            the temporary directory has no room for the file.
    """
    if not allow_untrained:
        refuse_untrained(record)
    with _copied(file) as (path, found):
        if found != record.weights_sha256:
            raise CheckpointError(
                f"the weights have sha256 {found}, their record says {record.weights_sha256}; "
                "copy both files again, or train or import the checkpoint again"
            )
        try:
            # They stay mapped when the file has lost its name.
            tensors = safetensors.torch.load_file(path)
        except safetensors.SafetensorError as error:
            raise CheckpointError(f"no readable safetensors file: {error}") from error
    # Initial values would take longer to draw than the weights to read, and be written over.
    with torch.device("meta"):
        network = build_recorded(record)
    expected = network.state_dict()
    check_tensors(expected, tensors)
    typed = {name: tensor.to(expected[name].dtype) for name, tensor in tensors.items()}
    network.load_state_dict(typed, assign=True)
    return network.eval()


@contextmanager
def _copied(file: IO[bytes]) -> Iterator[tuple[str, str]]:
    """Give a copy's path and its SHA-256 while the copy is there."""
    sha256 = hashlib.sha256()
    with _disk_errors():
        copy = tempfile.NamedTemporaryFile(suffix=".safetensors")  # noqa: SIM115 - is closed below
    try:
        while part := file.read(_PART_BYTES):
            sha256.update(part)
            with _disk_errors():
                copy.write(part)
                copy.flush()
        yield copy.name, sha256.hexdigest()
    finally:
        # It tries once more to write what did not fit.
        with _disk_errors():
            copy.close()


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"the weights can't be copied into the temporary directory: {error}; "
            "set TMPDIR to a folder with room for the file"
        ) from error


def random_network(record: Checkpoint, seed: int) -> Network:
    """Build an untrained network in evaluation mode; the same seed gives the same weights.

    Score layers, which start at zero, are drawn too: zeros would say class 0 everywhere.

    Args:
        record: Which network, and its classes.
        seed: Decides the network's initialisation.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_recorded(record)
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.any():
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        return network.eval()


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


def start_from(
    network: nn.Module,
    tensors: dict[str, torch.Tensor],
    classes: tuple[Sequence[str], Sequence[str]] | None = None,
) -> list[str]:
    """Fill a network with the tensors that fit it, by name, and leave the others as they are.

    Only score layers may differ: those whose shape depends on the number of classes, and those
    of skips that the other network does not have.

    Args:
        network: To be trained from there.
        tensors: The tensors of a network of the same family.
        classes: Names of the network's classes, and of those of the tensors. Where they differ,
            score layers take over the channels of classes that both have. None: they are the same.

    Returns:
        Names of the tensors of which something stays as it was.

    Raises:
        CheckpointError: Something else than score layers does not fit.
    """
    own = network.state_dict()
    partly: list[str] = []
    if classes is not None and list(classes[0]) != list(classes[1]):
        pairs = _same_names(*classes)
        partly = [
            name for name in own if name in tensors and _has_classes(name, own[name], classes)
        ]
        tensors = {**tensors, **{name: _merged(own, tensors, name, pairs) for name in partly}}
    fits = {
        name: tensors[name]
        for name, tensor in own.items()
        if name in tensors and tensors[name].shape == tensor.shape
    }
    fresh = [name for name in own if name not in fits]
    wrong = [name for name in fresh if not any(part in name for part in _SCORES)]
    if wrong:
        raise CheckpointError(
            f"the start weights lack, or have in another shape: {', '.join(wrong[:_MAX_SHOWN])}"
        )
    network.load_state_dict({**own, **fits})
    return [name for name in own if name not in fits or name in partly]


def _same_names(own: Sequence[str], given: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the indices of the classes that both have: in the one, and in the other."""
    shared = [name for name in own if name in given]
    return [own.index(name) for name in shared], [given.index(name) for name in shared]


def _has_classes(
    name: str, tensor: torch.Tensor, classes: tuple[Sequence[str], Sequence[str]]
) -> bool:
    scores = any(part in name for part in _SCORES)
    return scores and tensor.ndim > 0 and tensor.shape[0] == len(classes[0])


def _merged(
    own: dict[str, torch.Tensor],
    given: dict[str, torch.Tensor],
    name: str,
    pairs: tuple[list[int], list[int]],
) -> torch.Tensor:
    """Put the channels of shared classes of a given score layer into our own."""
    merged = own[name].clone()
    to, source = (torch.tensor(indices, dtype=torch.long) for indices in pairs)
    if name.startswith("upscore") and merged.ndim > 1:
        # Learned upsampling goes from classes to classes.
        merged[to[:, None], to] = given[name][source[:, None], source]
    else:
        merged[to] = given[name][source]
    return merged


def build_recorded(record: Checkpoint) -> Network:
    """Build the network that a record describes, untrained.

    Raises:
        CheckpointError: This version has no such network.
    """
    try:
        return build(
            record.network,
            record.num_classes,
            width=record.width,
            in_channels=record.in_channels,
            padding=record.padding,
            upsampling=record.upsampling,
        )
    except ValueError as error:
        raise CheckpointError(str(error)) from error


def check_tensors(
    expected: dict[str, torch.Tensor],
    found: dict[str, torch.Tensor],
    whose: str = "the network of their record",
) -> None:
    """Compare tensors with those of a network, by name, shape and value.

    Args:
        expected: Those of the network.
        found: Those to fill it with.
        whose: What the network is, for the message.

    Raises:
        CheckpointError: Tensors are missing, surplus, of another shape or not finite; it lists
            them.
    """
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
        if tensor.is_floating_point() and not _is_finite(tensor)
    ]
    if breaks:
        more = f"; and {len(breaks) - _MAX_SHOWN} more" if len(breaks) > _MAX_SHOWN else ""
        raise CheckpointError(
            f"the weights do not fit {whose}: " + "; ".join(breaks[:_MAX_SHOWN]) + more
        )


def _is_finite(tensor: torch.Tensor) -> bool:
    # `isfinite` makes copies of what can be half of a network's memory; a NaN is both ends.
    return not tensor.numel() or all(end.isfinite() for end in tensor.aminmax())
