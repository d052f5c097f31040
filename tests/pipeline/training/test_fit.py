"""How a training has failed: what Ray Train raises, as an error of ours."""

from pathlib import Path

import pytest
import ray.train
from ray.exceptions import RayActorError

from pipeline.errors import SettingError, StoreError, WorkersLost
from pipeline.settings.train import TrainSettings
from pipeline.training.fit import _raise
from pipeline.training.plan import TrainingPlan, open_plan
from tests.jobs.training_product import scenes


@pytest.fixture
def plan(tmp_path: Path) -> TrainingPlan:
    data = scenes(tmp_path, 2, 1)
    fields = {"data": str(data), "output": str(tmp_path), "run_name": "run", "batch_size": 4}
    return open_plan(TrainSettings(crop=(64, 96), **fields))


def on_workers(*errors: Exception) -> Exception:
    return ray.train.WorkerGroupError("", dict(enumerate(errors)))


_LOW = "6 worker(s) were killed due to the node running low on memory"


@pytest.mark.parametrize(
    "end",
    [
        ray.train.ControllerError(RayActorError(error_msg=_LOW)),
        on_workers(RayActorError(error_msg=_LOW)),
        RayActorError(error_msg=_LOW),
        on_workers(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")),
        on_workers(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: ...")),
        on_workers(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")),
        on_workers(RuntimeError("Triton Error [CUDA]: out of memory")),
    ],
    ids=["helper", "worker", "controller", "CUDA", "CPU", "cuBLAS", "Triton"],
)
def test_short_memory_is_a_setting_that_is_wrong(plan: TrainingPlan, end: Exception):
    """Whoever of Ray's processes was killed for it: the message names what needs the memory."""
    with pytest.raises(SettingError) as raised:
        _raise(end, plan)

    assert "crop=(64, 96), batch_size=4, micro_batch_size=" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_dead_workers_are_lost_whoever_says_so(plan: TrainingPlan):
    """Deaths without a reason end with 5, whether workers have died or Ray's own helpers."""
    for end in (on_workers(RayActorError()), ray.train.ControllerError(RayActorError())):
        with pytest.raises(WorkersLost, match="more often than max_failures allows"):
            _raise(end, plan)


def test_what_a_worker_says_goes_before_deaths(plan: TrainingPlan):
    """An error of ours on one worker is the reason, and the deaths that follow are not."""
    own = StoreError("forbidden", "the store refuses")
    with pytest.raises(StoreError, match="the store refuses"):
        _raise(on_workers(RayActorError(error_msg=_LOW), own), plan)


def test_anything_else_is_a_bug(plan: TrainingPlan):
    """It is raised as Ray Train has raised it, with its traceback."""
    with pytest.raises(ray.train.WorkerGroupError):
        _raise(on_workers(ValueError("a bug")), plan)
