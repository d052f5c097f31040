"""Weights: saved and loaded completely, or refused with what does not fit."""

import dataclasses
import hashlib
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from fcn.architectures import ARCHITECTURES
from fcn.models import build
from fcn.weights import CheckpointError
from fcn.weights.classes import numbered_classes
from fcn.weights.files import random_network, restore, restore_file, save
from fcn.weights.record import Checkpoint

_RECORD = Checkpoint("fcn_all_skips", numbered_classes(3), width=4)


def _network(seed: int = 0) -> nn.Module:
    """Build a network whose every tensor differs from its default."""
    network = random_network(_RECORD, seed)
    generator = torch.Generator().manual_seed(seed)
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) / 9 + 0.01)
    return network


def _resaved(tensors: dict[str, torch.Tensor]) -> tuple[Checkpoint, bytes]:
    data = safetensors.torch.save(tensors)
    return dataclasses.replace(_RECORD, weights_sha256=hashlib.sha256(data).hexdigest()), data


def test_weights_are_loaded_as_they_were_saved() -> None:
    """Every tensor comes back, and the network then says the same, in evaluation mode."""
    network = _network()
    record, data = save(_RECORD, network)
    loaded = restore(record, data)
    assert not any(module.training for module in loaded.modules())
    expected = network.state_dict()
    assert list(loaded.state_dict()) == list(expected)
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    image = torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(1))
    assert torch.equal(loaded(image), network(image))


def test_no_initial_values_are_drawn_to_be_written_over() -> None:
    """Loading leaves the generator alone: drawing values takes longer than reading the weights."""
    record, data = save(_RECORD, _network())
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    restore(record, data)
    assert torch.equal(torch.rand(3), expected)


def test_weights_of_another_type_become_the_networks() -> None:
    """A checkpoint of half-precision weights fills the network as it is built, for training too."""
    network = _network()
    tensors = network.state_dict()
    halves = {
        key: tensor.half() if tensor.is_floating_point() else tensor
        for key, tensor in tensors.items()
    }
    loaded = restore(*_resaved(halves))
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, halves[name].to(tensors[name].dtype)), name
    assert all(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_checkpoint_holds_all_tensors_of_a_network(name: str) -> None:
    """No network has a tensor beside its weights, which loading would leave without values."""
    with torch.device("meta"):
        network = build(name, 3)
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    assert tensors.keys() == network.state_dict().keys()


def test_the_record_is_completed_by_the_hash() -> None:
    """Saving changes the hash in the record and nothing else; the same weights, the same bytes."""
    record, data = save(_RECORD, _network())
    assert record == dataclasses.replace(_RECORD, weights_sha256=hashlib.sha256(data).hexdigest())
    assert save(_RECORD, _network()) == (record, data)


def test_weights_in_any_memory_format_are_saved() -> None:
    """A network in channels_last is saved as any other."""
    network = _network()
    record, data = save(_RECORD, network)
    assert save(_RECORD, network.to(memory_format=torch.channels_last)) == (record, data)


def test_weights_of_another_hash_are_refused() -> None:
    """One changed byte is refused before it is read, with both hashes."""
    record, data = save(_RECORD, _network())
    changed = data[:-1] + bytes([data[-1] ^ 1])
    found = hashlib.sha256(changed).hexdigest()
    with pytest.raises(
        CheckpointError, match=f"{found}, their record says {record.weights_sha256}"
    ):
        restore(record, changed)


def test_missing_tensors_are_listed() -> None:
    """Weights that lack tensors are refused with the names that are missing."""
    tensors = _network().state_dict()
    del tensors["classifier.bias"], tensors["bn1.running_mean"]
    with pytest.raises(
        CheckpointError, match=r"missing: bn1\.running_mean; missing: classifier\.bias$"
    ):
        restore(*_resaved(tensors))


def test_surplus_tensors_are_listed() -> None:
    """Weights with tensors that the network does not know are refused with their names."""
    tensors = {**_network().state_dict(), "head.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"surplus: head\.weight$"):
        restore(*_resaved(tensors))


def test_misshapen_tensors_are_listed() -> None:
    """Weights of another number of classes are refused with both shapes."""
    record, data = save(_RECORD, _network())
    other = dataclasses.replace(record, classes=numbered_classes(4))
    message = r"classifier\.weight has shape \(3, 2, 1, 1\), expected \(4, 2, 1, 1\); classifier\.b"
    with pytest.raises(CheckpointError, match=message):
        restore(other, data)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    """Weights of a training that has diverged are refused with the tensor that shows it."""
    tensors = _network().state_dict()
    tensors["bn3.weight"][1] = value
    with pytest.raises(CheckpointError, match=r"bn3\.weight holds NaN or infinity$"):
        restore(*_resaved(tensors))


def test_a_long_list_is_cut() -> None:
    """Weights of another width are refused with ten reasons and the number of the others."""
    record, data = save(_RECORD, _network())
    number = sum(
        tensor.shape != other.shape
        for tensor, other in zip(
            build("fcn_all_skips", 3, width=8).state_dict().values(),
            _network().state_dict().values(),
            strict=True,
        )
    )
    with pytest.raises(CheckpointError, match=f"; and {number - 10} more$") as caught:
        restore(dataclasses.replace(record, width=8), data)
    assert str(caught.value).count("expected") == 10


@pytest.mark.parametrize("data", [b"", b"garbage", b"\x80\x02}q\x00.", b"\xff" * 100])
def test_what_is_no_safetensors_file_is_refused(data: bytes) -> None:
    """Another file, a pickle among them, is refused even if its hash is the record's."""
    record = dataclasses.replace(_RECORD, weights_sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(CheckpointError, match="no readable safetensors file"):
        restore(record, data)


def test_an_unknown_network_is_refused() -> None:
    """A name that is no network's is refused with the names that there are."""
    with pytest.raises(ValueError, match="network='resnet' is unknown; there are: fcn32s_vgg16"):
        build("resnet", 3)


def test_random_weights_depend_on_the_seed_alone() -> None:
    """The same seed gives the same weights, another one others, whatever was drawn before."""
    first, again, other = (
        torch.cat([one.flatten() for one in random_network(_RECORD, seed).parameters()])
        for seed in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_random_weights_leave_the_generator_alone() -> None:
    """Drawing weights does not change what the process draws next."""
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    random_network(_RECORD, 5)
    assert torch.equal(torch.rand(3), expected)


def test_random_weights_make_different_masks() -> None:
    """An untrained network gives several classes, so that a demo shows something."""
    network = random_network(dataclasses.replace(_RECORD, classes=numbered_classes(5)), 0)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert len(network(image).argmax(1).unique()) > 1


def test_weights_are_loaded_without_torchvision_and_the_compiler() -> None:
    """Whoever loads FCN-8s does not pay for what it has no use for."""
    code = (
        "import sys; import fcn.inference.predictor\n"
        "from fcn.weights.files import build_recorded, restore, save\n"
        "from fcn.weights.record import Checkpoint\n"
        "from fcn.weights.classes import numbered_classes\n"
        "record = Checkpoint('fcn8s_vgg16', numbered_classes(3), width=2)\n"
        "restore(*save(record, build_recorded(record)))\n"
        "sys.exit(', '.join({'torchvision', 'torch._dynamo'} & set(sys.modules)) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _private_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    [kilobytes] = [line.split()[1] for line in lines if line.startswith("RssAnon")]
    return int(kilobytes) << 10


def test_weights_are_mapped_and_not_copied(tmp_path: Path) -> None:
    """A network that is loaded from a file takes no memory of its own until it is used.

    In it and in the file's bytes it would lie twice, as with `safetensors.torch.load`.
    """
    record = dataclasses.replace(_RECORD, network="fcn8s_vgg16", width=16)
    record, data = save(record, random_network(record, 0))
    path = tmp_path / "weights"
    path.write_bytes(data)
    num_bytes = len(data)
    assert num_bytes > 30e6
    del data
    before = _private_bytes()
    with path.open("rb") as file:
        network = restore_file(record, file)
    assert _private_bytes() - before < num_bytes / 3
    assert sum(tensor.nbytes for tensor in network.state_dict().values()) > 0.99 * num_bytes


@pytest.mark.parametrize("missing_bytes", [1, 100_000])
def test_no_room_for_the_copy_is_said(missing_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the temporary directory is full or missing, the message says what to set."""
    record, data = save(_RECORD, random_network(_RECORD, 0))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(data) - missing_bytes, hard))
    try:
        with pytest.raises(CheckpointError, match="File too large; set TMPDIR to a folder"):
            restore(record, data)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    with pytest.raises(CheckpointError, match=r"/nowhere.*; set TMPDIR to a folder"):
        restore(record, data)
