"""Devices that can't be used say why, before a replica works."""

from types import SimpleNamespace

import pytest
import torch

from fcn.inference import DeviceError
from fcn.inference.device import loading_onto, open_device


def test_a_cpu_is_always_there() -> None:
    """The CPU is given as PyTorch names it."""
    assert open_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused_with_versions_and_remedy() -> None:
    """Without a GPU or its driver the message says what PyTorch was built for, and what to do."""
    with pytest.raises(DeviceError, match=r"cuda can't be used by PyTorch \d.*gpus_per_replica=0"):
        open_device("cuda")


def _no_room() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")


@pytest.mark.parametrize("message", ["does not fit", "Tried to allocate 2.00 GiB. Is another"])
def test_a_card_that_is_full_at_the_start_is_refused(message: str) -> None:
    """A network that the card has no room for is one sentence with a remedy, not a back-off."""
    with pytest.raises(DeviceError, match=message), loading_onto(torch.device("cpu")):
        _no_room()


def test_a_replica_takes_its_share_of_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a card that replicas share, PyTorch gets the share that was asked for; of a CPU none.

    PyTorch's own checks run: it refuses a card without its number, and a share that is no float.
    """
    taken: list[object] = []
    there = SimpleNamespace(device=torch.device("cuda", 3))
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: there)
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    setter = "_cuda_setMemoryFraction"
    monkeypatch.setattr(torch._C, setter, lambda *args: taken.append(args), raising=False)
    open_device("cpu", 0.5)
    assert open_device("cuda", 1) == torch.device("cuda", 3)
    assert taken == [(1.0, 3)]
    # As an evaluation does in the middle of a training, whose share stays.
    assert open_device("cuda") == torch.device("cuda", 3)
    assert taken == [(1.0, 3)]


@pytest.mark.parametrize("message", ["Triton Error [CUDA]: out of memory", "something else"])
def test_only_short_memory_is_told_as_a_full_card(message: str) -> None:
    """What libraries say of it in their own words is it, too; other errors pass."""
    expected = DeviceError if "memory" in message else RuntimeError
    with pytest.raises(expected, match=r"memory|else"), loading_onto(torch.device("cpu")):
        raise RuntimeError(message)
