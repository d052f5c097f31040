"""What a worker finds out of its device, before it trains."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pipeline.errors import SettingError
from pipeline.training import worker
from pipeline.training.state_file import Position, from_bytes, to_bytes


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ([(8, 0)], "bf16"),
        ([(9, 0), (8, 6)], "bf16"),
        ([(9, 0), (7, 5)], "fp32"),
        ([(7, 5)], "fp32"),
    ],
)
def test_bf16_is_for_workers_that_all_have_matrix_units_for_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: list[tuple[int, int]], expected: str
) -> None:
    """PyTorch computes it on older cards, too, at a fraction of the speed of fp32."""
    others = sum(one >= (8, 0) for one in capabilities[1:])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capabilities[0])
    monkeypatch.setattr(worker, "world_size", lambda: len(capabilities))
    monkeypatch.setattr(worker, "sum_over_workers", lambda mine: mine + others)
    on_cpu = torch.tensor
    monkeypatch.setattr(worker.torch, "tensor", lambda value, **_: on_cpu(value))
    assert worker._precision(torch.device("cuda", 0)) == expected


def test_cpus_train_in_fp32() -> None:
    """Few have units for bf16, and those that have are asked for it."""
    assert worker._precision(torch.device("cpu")) == "fp32"


@pytest.mark.parametrize(
    ("asked_for", "so_far", "expected"),
    [(None, "", "bf16"), (None, "fp32", "fp32"), ("fp32", "", "fp32"), ("bf16", "bf16", "bf16")],
)
def test_a_training_goes_on_in_the_precision_it_was_begun_in(
    monkeypatch: pytest.MonkeyPatch, asked_for: str | None, so_far: str, expected: str
) -> None:
    """Also on GPUs of another generation; only where it begins the devices decide, and it says so.

    A checkpoint holds it.
    """
    monkeypatch.setattr(worker, "_precision", lambda _: "bf16")
    plan: Any = SimpleNamespace(settings=SimpleNamespace(precision=asked_for))
    said: list[str] = []
    watch: Any = SimpleNamespace(say=said.append)
    saved, _ = from_bytes(to_bytes(Position(precision=so_far), {}), "last")
    found = worker._with_precision(saved, plan, torch.device("cpu"), watch)
    assert found.precision == expected
    chosen = asked_for is None and not so_far
    assert said == (["precision bf16, by the workers' devices"] if chosen else [])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_can_not_be_used_is_a_refused_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that is missing or too old is said with versions and the remedy."""
    monkeypatch.setattr(worker.ray.train.torch, "get_device", lambda: torch.device("cuda", 0))
    plan: Any = SimpleNamespace(settings=SimpleNamespace(gpus_per_worker=1.0))
    with pytest.raises(SettingError, match=r"a worker's device: cuda:0 .*gpus_per_worker=0"):
        worker._open_device(plan)
