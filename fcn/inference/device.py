"""The device of a replica: there, and with room for the network, or refused with a sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fcn.inference import DeviceError
from fcn.short_memory import tells_of_short_memory


def open_device(name: str, memory_share: float | None = None) -> torch.device:
    """Return a device that answers.

    Args:
        name: As PyTorch names it, such as `cpu`, `cuda`, which is the current one, or `cuda:1`.
        memory_share: Of a GPU's memory, what PyTorch's allocator may take in this process, 0 to 1:
            processes that share a GPU would else fill it up for each other. None leaves the share
            that the process has, which is all of it at first.

    Raises:
        DeviceError: It does not answer; the message holds PyTorch's version, and the remedy.
    """
    device = torch.device(name)
    if device.type == "cuda":
        with _refusals_are_said(name):
            # Not all of PyTorch takes a GPU without its number.
            device = torch.zeros(1, device=device).device
            if memory_share is not None:
                torch.cuda.set_per_process_memory_fraction(float(memory_share), device)
    return device


@contextmanager
def working_on(device: torch.device) -> Iterator[None]:
    """Make a GPU the current one of this thread: events and kernels go to that one.

    Args:
        device: Any; a CPU needs nothing.
    """
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device):
        yield


@contextmanager
def loading_onto(device: torch.device) -> Iterator[None]:
    """Say that a device is too full to hold a network at all.

    Raises:
        DeviceError: Loading inside the block ran out of the device's memory.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not tells_of_short_memory(str(error)):
            raise
        raise DeviceError(
            f"the network does not fit into the memory that is free on {device}: "
            f"{first_line(error)} Is another process on the card? Fewer replicas per GPU "
            "(gpus_per_replica=1) or a narrower network need less"
        ) from error


@contextmanager
def _refusals_are_said(name: str) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"{name} is full: {first_line(error)} Is another process on the card?"
        ) from error
    # A PyTorch without CUDA asserts that it is there.
    except (RuntimeError, AssertionError) as error:
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        raise DeviceError(
            f"{name} can't be used by PyTorch {torch.__version__}, built {built}: "
            f"{first_line(error)} Give the node a GPU and a driver that is new enough, or "
            "do without one (gpus_per_replica=0, gpus_per_worker=0; in Python device='cpu')"
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of a message, as a sentence.

    Args:
        error: Whose message it is.
    """
    line = str(error).strip().partition("\n")[0].strip()
    return line if line.endswith(".") else f"{line}."
