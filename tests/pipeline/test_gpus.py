"""A GPU that is asked for and is not there is named before anything is begun."""

from pathlib import Path

import pytest

from pipeline.errors import SettingError
from pipeline.gpus import check_gpus


def test_a_machine_without_a_gpu_refuses_to_wait_for_one(tmp_path: Path) -> None:
    """The setting, its value, and what else can be done; devices beside them are none."""
    for name in ("nvidiactl", "nvidia-uvm"):
        (tmp_path / "dev").mkdir(exist_ok=True)
        (tmp_path / "dev" / name).touch()
    with pytest.raises(SettingError, match=r"gpus_per_worker=0.5: this machine has no GPU .* CPUs"):
        check_gpus("gpus_per_worker", 0.5, tmp_path)
    for none in (None, 0.0):
        check_gpus("gpus_per_worker", none, tmp_path)


@pytest.mark.parametrize("device", ["nvidia0", "nvidia12", "dxg", "kfd", "nvhost-gpu"])
def test_a_gpu_of_any_kind_is_left_to_ray(device: str, tmp_path: Path) -> None:
    """Whether it works is found out where it is used."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / device).touch()
    check_gpus("gpus_per_replica", 1.0, tmp_path)
