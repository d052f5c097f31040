"""Fit: a plan -> Ray Train's workers -> the end of the training, watched from the driver."""

import logging
import tempfile
import uuid
from collections.abc import Callable
from typing import Any, cast

import ray.train
import ray.train.torch

from jobs.training.config import WorkerConfig
from jobs.training.entry import train_worker
from jobs.training.messages import Messages
from jobs.training.plan import TrainingPlan
from jobs.training.workers import Workers, choose_workers
from pipeline.errors import PipelineError, WorkersLost, own_error
from pipeline.inspection import Inspection

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


def fit(plan: TrainingPlan, inspection: Inspection, check: Callable[[], None]) -> None:
    """Train to the end.

    Args:
        plan: What to train.
        inspection: What its data holds.
        check: Called again and again; what it raises ends the training.

    Raises:
        PipelineError: The training diverged, or the store failed for good.
        TrainingFailedError: Workers died more often than `max_failures`: Ray Train's own.
    """
    settings = plan.settings
    workers = choose_workers(settings, ray.nodes())  # type: ignore[no-untyped-call]  # Ray's
    _log.info("%s", workers)
    with (
        tempfile.TemporaryDirectory(prefix="fcn-train-") as folder,
        Messages(plan, check) as messages,
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
        _raise(messages.until(trainer))


def _scaling(workers: Workers) -> Any:
    resources = {"CPU": workers.num_cpus}
    if workers.num_gpus:
        resources["GPU"] = workers.num_gpus
    elastic = workers.most > workers.number
    return _TRAIN.ScalingConfig(
        num_workers=(workers.number, workers.most) if elastic else workers.number,
        use_gpu=workers.num_gpus > 0,
        resources_per_worker=resources,
    )


def _raise(end: Any) -> None:
    """Raise what a training has ended with, if it is not its end."""
    if isinstance(end, _TRAIN.WorkerGroupError):
        raise _reason(end) from end
    if isinstance(end, BaseException):
        raise own_error(end) from end
    if isinstance(end.return_value, PipelineError):
        raise end.return_value


def _reason(error: Any) -> BaseException:
    """Find out why workers failed: an error of ours, death, or else a bug."""
    # Ray Train keeps what a worker raised inside a wrapper that pickles.
    raised = [getattr(one, "_base_exc", one) for one in error.worker_failures.values()]
    for one in map(own_error, raised):
        if isinstance(one, PipelineError):
            return one
    # When one worker dies, the others fail because its connection is gone.
    died = [one for one in raised if isinstance(one, ray.exceptions.RayActorError)]
    if died:
        return WorkersLost(
            f"workers died more often than max_failures allows: {died[0]}; Ray's log says how "
            "(out of memory, a lost node)"
        )
    found: BaseException = error
    return found
