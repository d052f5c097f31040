"""Fit: a plan -> Ray Train's workers -> the end of the training, watched from the driver."""

import logging
import re
import tempfile
import uuid
from collections.abc import Callable
from importlib.metadata import version
from typing import Any, cast

import ray.train
import ray.train.torch

from fcn import short_memory
from pipeline.cluster import ray_errors
from pipeline.cluster.nodes import alive_nodes
from pipeline.cluster.ray_errors import last_line
from pipeline.cluster.reservation import give_back, wait_for_room
from pipeline.cluster.tasks import TASK_CPUS
from pipeline.errors import PipelineError, SettingError, WorkersLost, own_error
from pipeline.inputs.inspect import Inspection
from pipeline.settings.train import TrainSettings
from pipeline.training.config import WorkerConfig
from pipeline.training.messages import Messages
from pipeline.training.plan import TrainingPlan
from pipeline.training.start import train_worker
from pipeline.training.tracker import Track
from pipeline.training.workers import Workers, choose_workers

_log = logging.getLogger(__name__)

# Ray's types are those of the first Ray Train, its classes those of the second.
_TRAIN: Any = ray.train
_WORKER_ENVIRONMENT = {
    # PyTorch's threads would spin at their barriers and keep the loading tasks from their cores.
    "OMP_WAIT_POLICY": "PASSIVE",
    # glibc would map every large tensor of a CPU anew, page by page (mallopt(3)): 10 to 15 percent
    # of a step.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
    "MALLOC_TOP_PAD_": str(256 << 20),
}
# What PyTorch says of a GPU that is not there, or of its driver, before a worker of ours runs.
_NO_GPU = re.compile("no GPUs found|NVIDIA driver|CUDA driver version|no CUDA-capable device")


def fit(
    plan: TrainingPlan, inspection: Inspection, check: Callable[[], None], track: Track
) -> None:
    """Train to the end.

    Args:
        plan: What to train.
        inspection: What its data holds.
        check: Called again and again; what it raises ends the training.
        track: Called with the line of each evaluation.

    Raises:
        PipelineError: The training diverged, ran out of memory, found no room, or lost its workers
            more often than `max_failures`, or the store failed for good.
    """
    settings = plan.settings
    workers = choose_workers(settings, alive_nodes())
    _log.info("%s", workers)
    if settings.ray_address is not None:
        _wait_for_room(workers, settings)
    with (
        tempfile.TemporaryDirectory(prefix="fcn-train-") as folder,
        Messages(plan, check, track) as messages,
    ):
        config = WorkerConfig(plan, inspection, workers.threads, messages.sender())
        trainer = ray.train.torch.TorchTrainer(
            cast("Any", train_worker),
            train_loop_config={"config": config},
            scaling_config=_scaling(workers),
            run_config=_TRAIN.RunConfig(
                name=f"fcn-{settings.run_name}-{uuid.uuid4().hex[:8]}",
                # Checkpoints are the run's own (docs/decisions.md); here Ray keeps its notes.
                storage_path=folder,
                failure_config=_TRAIN.FailureConfig(max_failures=settings.max_failures),
                logging_config=_TRAIN.LoggingConfig(log_level="ERROR"),
                worker_runtime_env={"env_vars": _WORKER_ENVIRONMENT},
            ),
        )
        _raise(_end(messages, trainer), plan)


def _wait_for_room(workers: Workers, settings: TrainSettings) -> None:
    room = wait_for_room(
        workers.number, "worker(s)", workers.resources, {"CPU": TASK_CPUS}, settings
    )
    # Ray Train sets room aside as well, all at once.
    give_back(room)


def _scaling(workers: Workers) -> Any:
    elastic = workers.most > workers.number
    return _TRAIN.ScalingConfig(
        num_workers=(workers.number, workers.most) if elastic else workers.number,
        use_gpu=workers.num_gpus > 0,
        resources_per_worker=workers.resources,
    )


def _end(messages: Messages, trainer: ray.train.torch.TorchTrainer) -> Any:
    """Return what a training has ended with: a result or an error."""
    try:
        return messages.until(trainer.fit)
    except ray.exceptions.RayError as error:  # who takes the messages has died
        return error


def _raise(end: Any, plan: TrainingPlan) -> None:
    """Raise what a training has ended with, if it is not its end."""
    if isinstance(end, BaseException):
        raise _reason(end, plan) from end
    if isinstance(end.return_value, PipelineError):
        raise end.return_value


def _reason(end: BaseException, plan: TrainingPlan) -> BaseException:
    """Find out why a training failed: an error of ours, short memory, death, or else a bug."""
    raised = _raised(end)
    for one in map(own_error, raised):
        if isinstance(one, PipelineError):
            return one
    if any(_tells_of_short_memory(str(one)) for one in raised):
        return _out_of_memory(plan)
    if no_gpu := next((one for one in raised if _NO_GPU.search(str(one))), None):
        return SettingError(
            f"a worker's device: PyTorch {version('torch')} can use no GPU on a node that has one "
            f"for Ray: {last_line(no_gpu)} Give the node a GPU and a driver that is new enough, or "
            "do without one (gpus_per_worker=0)"
        )
    # When one worker dies, the others fail because its connection is gone.
    died = [one for one in raised if isinstance(one, ray.exceptions.RayActorError)]
    if died:
        return WorkersLost(
            f"workers died more often than max_failures allows: {died[0]}; Ray's log says how "
            "(out of memory, a lost node)"
        )
    return end


def _raised(end: Any) -> list[BaseException]:
    """Return what was raised on the workers, or by Ray Train itself."""
    if isinstance(end, _TRAIN.WorkerGroupError):
        return list(end.worker_failures.values())
    # Ray kills its own helpers, too, when a node is short of memory.
    return [end.controller_failure if isinstance(end, _TRAIN.ControllerError) else end]


def _tells_of_short_memory(text: str) -> bool:
    told = ray_errors.tells_of_short_memory(text)
    return told or short_memory.tells_of_short_memory(text)


def _out_of_memory(plan: TrainingPlan) -> SettingError:
    recipe = plan.stages[-1].recipe
    crop = recipe.augmentation.crop or "none (whole images)"
    micro = recipe.micro_batch_size or recipe.batch_size
    return SettingError(
        f"the training has run out of memory with crop={crop}, batch_size={recipe.batch_size}, "
        f"micro_batch_size={micro} and num_workers={plan.settings.num_workers}: "
        "lower one of them and give another run_name, or run the same command where there is more "
        "memory"
    )
