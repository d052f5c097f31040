"""`torch.compile` for whole pictures: one graph per size, or a refusal before the first picture."""

import logging
import sys
import time

import torch

from fcn.inference import DeviceError
from fcn.inference.device import first_line
from fcn.models.network import Network

_log = logging.getLogger(__name__)

# From so many sizes on, somebody should know what they cost.
_MANY_SIZES = 9


class CompiledNetwork:
    """A network whose every size of pictures is compiled, in whatever order they come."""

    def __init__(self, network: Network) -> None:
        """Compile nothing yet.

        Args:
            network: On its device, in evaluation mode.
        """
        # At PyTorch's limit of eight, sizes that come later would run as they are: pixels would
        # depend on which sizes a replica met first.
        config = torch._dynamo.config  # noqa: SLF001 - as PyTorch's documentation names it
        config.recompile_limit = config.accumulated_recompile_limit = sys.maxsize
        self._run = torch.compile(network, dynamic=False)
        self._shapes: set[torch.Size] = set()

    def __call__(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Score a batch; a shape that is new takes minutes.

        Args:
            images_NCHW: Normalised, on the device.
        """
        if images_NCHW.shape not in self._shapes:
            self._shapes.add(images_NCHW.shape)
            self._say()
        scores: torch.Tensor = self._run(images_NCHW)
        return scores

    def _say(self) -> None:
        if len(self._shapes) == _MANY_SIZES:
            _log.warning(
                "compiled: this is the %dth size of images that is compiled, for minutes each; "
                "without --compiled an input of many sizes is labelled sooner",
                _MANY_SIZES,
            )


def try_compiler(device: torch.device) -> None:
    """Compile and run a line on a device.

    Args:
        device: On which networks are to be compiled.

    Raises:
        DeviceError: It can't be done; the message holds the reason, and the remedy.
    """
    # Compiled for the first time, so that nothing that is kept on a disk stands for the compiler.
    number = time.time()
    try:
        torch.compile(lambda values: values * number, dynamic=False)(torch.ones(8, device=device))
    except (RuntimeError, OSError, ImportError) as error:
        needed = "a C++ compiler (g++, or what CXX names)"
        if device.type == "cuda":
            needed = "Triton and a C compiler (gcc, or what CC names) with Python's headers"
        raise DeviceError(
            f"compiled: torch.compile does not work here: {first_line(error)} It needs {needed} "
            "on every node that has replicas. Install it, or leave --compiled out"
        ) from error
