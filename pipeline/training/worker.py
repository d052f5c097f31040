"""What every worker of a training runs: the stages, one after the other."""

import dataclasses
from collections.abc import Sequence

import ray.train.torch
import torch

from fcn.inference import DeviceError
from fcn.inference.device import open_device
from fcn.models import Network
from fcn.training.distributed import rank, sum_over_workers, world_size
from fcn.training.recipes import class_weights
from fcn.training.trainer import Tensors, Trainer
from fcn.weights import CheckpointError
from fcn.weights.classes import ClassLabel
from fcn.weights.files import build_recorded, restore_file, start_from
from fcn.weights.record import Checkpoint
from pipeline.errors import PipelineError, SettingError
from pipeline.inputs.samples import TRAIN
from pipeline.store.object_file import open_object
from pipeline.training.config import WorkerConfig
from pipeline.training.loop import Ended, train_stage
from pipeline.training.metrics_log import Message, Watch
from pipeline.training.plan import Stage, TrainingPlan
from pipeline.training.rate_steps import try_rates
from pipeline.training.run_folder import LAST, TrainingRun
from pipeline.training.state_file import Position, from_bytes

# Compute capability of Ampere.
_WITH_BF16 = (8, 0)
# What PyTorch says of a batch norm in training that has no other value to compare one with.
_ONE_VALUE = "Expected more than 1 value per channel"


def train(config: WorkerConfig) -> PipelineError | None:
    """Train, as one of the workers.

    Args:
        config: The same for all of them.

    Returns:
        Why the training ended before its end; None if it is done.
    """
    device = _open_device(config.plan)
    if device.type == "cpu":
        torch.set_num_threads(config.threads)
    run = TrainingRun(config.plan.storage, config.plan.folder)
    saved = run.read_checkpoint(LAST)
    position, tensors = Position(), None
    if saved is not None:
        position, tensors = from_bytes(saved, run.checkpoint_uri(LAST))
    _check_same(position, device, run)
    send = config.send if rank() == 0 else _ignore
    with Watch(run, config.plan.classes, position.total_steps, send) as watch:
        if saved is not None:
            watch.say(f"resuming after step {position.total_steps}")
        try:
            _train(config, run, watch, device, position, tensors)
        except Ended as ended:
            return ended.error
        except ValueError as error:
            if not str(error).startswith(_ONE_VALUE):
                raise
            return _one_value(config.plan)
    return None


def _one_value(plan: TrainingPlan) -> SettingError:
    stage = plan.stages[-1]
    crop = stage.recipe.augmentation.crop or "none (whole images, one by one where sizes differ)"
    return SettingError(
        f"an image that passes through {stage.record.network} alone is so small that its batch "
        f"norms have one pixel, and need two, with crop={crop}, batch_size="
        f"{stage.recipe.batch_size} and micro_batch_size={stage.recipe.micro_batch_size}: give a "
        "larger crop, or let more images pass together, under another run_name"
    )


def _open_device(plan: TrainingPlan) -> torch.device:
    share = plan.settings.gpus_per_worker or 1.0
    try:
        return open_device(str(ray.train.torch.get_device()), min(1.0, share))
    except DeviceError as error:
        raise SettingError(f"a worker's device: {error}") from error


def _check_same(position: Position, device: torch.device, run: TrainingRun) -> None:
    """Refuse to go on if workers have read different checkpoints: each needs to see the same.

    Raises:
        SettingError: They have, as where the output is on a disk of one node.
    """
    total = torch.tensor(position.total_steps, dtype=torch.int64, device=device)
    if sum_over_workers(total).item() != position.total_steps * world_size():
        raise SettingError(
            f"workers find different checkpoints at {run.checkpoint_uri(LAST)}: the output has to "
            "be in a bucket, or on a disk that all nodes share"
        )


def _ignore(_: Message) -> None:
    """Take a message of a worker that nobody watches."""


def _train(  # noqa: PLR0913, PLR0917 - what train_worker has just made
    config: WorkerConfig,
    run: TrainingRun,
    watch: Watch,
    device: torch.device,
    position: Position,
    tensors: Tensors | None,
) -> None:
    plan = config.plan
    position = _with_precision(position, plan, device, watch)
    network: Network | None = None
    for index in range(position.stage, len(plan.stages)):
        stage = plan.stages[index]
        if index > position.stage:
            done = position
            position = Position(index, total_steps=done.total_steps, precision=done.precision)
            watch.say(f"stage {index + 1} of {len(plan.stages)}: {stage.record.network}")
        fresh = tensors is None and network is None
        network = _network(plan, stage, network, watch, fresh=fresh)
        trainer = _trainer(config, stage, device, position.precision, network)
        if plan.settings.find_rate:
            try_rates(plan, trainer, run, watch)
            return
        if tensors is not None:
            trainer.restore(tensors)
            tensors = None
        position = train_stage(plan, trainer, position, run, watch)
        network = trainer.network


def _with_precision(
    position: Position, plan: TrainingPlan, device: torch.device, watch: Watch
) -> Position:
    """Settle the precision: what was asked for, or else what the training has been in so far."""
    precision = plan.settings.precision or position.precision
    if not precision:
        precision = _precision(device)
        watch.say(f"precision {precision}, by the workers' devices")
    return dataclasses.replace(position, precision=precision)


def _trainer(
    config: WorkerConfig, stage: Stage, device: torch.device, precision: str, network: Network
) -> Trainer:
    settings = config.plan.settings
    counted = config.inspection.pixels[TRAIN][: len(config.plan.classes)]
    return Trainer(
        network,
        stage.record,
        stage.recipe,
        device=str(device),
        precision=precision,
        class_weights=class_weights(stage.recipe, counted),
        gradient_checkpointing=settings.gradient_checkpointing,
        seed=settings.seed,
    )


def _precision(device: torch.device) -> str:
    """Choose bf16 where the GPUs of all workers have matrix units for it."""
    good = device.type == "cuda" and torch.cuda.get_device_capability(device) >= _WITH_BF16
    agreed = sum_over_workers(torch.tensor(int(good), device=device)).item()
    return "bf16" if agreed == world_size() else "fp32"


def _network(
    plan: TrainingPlan, stage: Stage, before: Network | None, watch: Watch, *, fresh: bool
) -> Network:
    """Build the network of a stage, from the stage before, the start weights, or nothing."""
    # Every worker draws the same one.
    torch.manual_seed(plan.settings.seed)
    network = build_recorded(stage.record)
    if before is not None:
        start_from(network, before.state_dict())
    elif fresh and plan.start is not None:
        _start(network, plan, plan.start, watch)
    return network


def _start(network: Network, plan: TrainingPlan, start: str, watch: Watch) -> None:
    try:
        record = Checkpoint.from_json(
            plan.storage.read(start.removesuffix(".safetensors") + ".json")
        )
        with open_object(plan.storage, start) as file:
            given = restore_file(record, file, allow_untrained=True)
        names = _names(plan.classes), _names(record.classes)
        anew = start_from(network, given.state_dict(), names)
    except CheckpointError as error:
        raise Ended(SettingError(f"weights={start!r}: {error}")) from error
    if anew:
        watch.say(f"layers that start anew: {', '.join(anew)}{_kept(*names)}")


def _names(classes: Sequence[ClassLabel]) -> list[str]:
    return [label.name for label in classes]


def _kept(own: list[str], given: list[str]) -> str:
    """Say which classes' scores do not start anew, where the start's classes are others."""
    kept = [name for name in own if name in given]
    if own == given or not kept:
        return ""
    return f"; but for the classes of the same name: {', '.join(kept)}"
