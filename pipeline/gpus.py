"""GPUs of this machine, as far as files tell, without what takes seconds to load."""

from pathlib import Path

from pipeline.errors import SettingError

# NVIDIA's, those of Jetsons and of Windows' subsystem, and AMD's.
_DEVICES = ("dev/nvidia[0-9]*", "dev/nvhost-gpu", "dev/dxg", "dev/kfd")


def check_gpus(name: str, number: float | None, root: Path = Path("/")) -> None:
    """Refuse to wait for a GPU on a machine without one.

    Args:
        name: The setting that asks for GPUs.
        number: Its value; None and 0 ask for none.
        root: The root of the file system.

    Raises:
        SettingError: There is none.
    """
    if number and not any(any(root.glob(one)) for one in _DEVICES):
        raise SettingError(
            f"{name}={number:g}: this machine has no GPU that its driver shows (/dev/nvidia0, ...);"
            " leave it out to work on CPUs, or name a cluster with ray_address"
        )
