"""The driver of a training: inspect the data once, train, record the best weights."""

import logging
from typing import Any

from fcn.weights.record import Checkpoint
from pipeline.cluster.connect import start_ray
from pipeline.cluster.inspection import inspect
from pipeline.errors import InputError
from pipeline.gpus import check_gpus
from pipeline.inputs.inspect import Inspect, Inspection, summarise
from pipeline.inputs.samples import TRAIN, VAL
from pipeline.store.lock import Lock
from pipeline.training.fit import fit
from pipeline.training.plan import TrainingPlan, commit
from pipeline.training.run_folder import BEST, TrainingRun, completed
from pipeline.training.steps import done_too_few, planned_too_few
from pipeline.training.tracker import check_tracker, tracking
from pipeline.versions import versions

_log = logging.getLogger(__name__)


def train(plan: TrainingPlan, training: TrainingRun, lock: Lock) -> Checkpoint | None:
    """Train a network, or resume its training.

    Args:
        plan: The run's plan.
        training: Its folder.
        lock: Held on it.

    Returns:
        The record of the best weights; None where only rates were tried.

    Raises:
        PipelineError: As `pipeline.errors` says, each with its exit code.
    """
    check_tracker(plan.settings.tracker)
    if plan.settings.ray_address is None:
        check_gpus("gpus_per_worker", plan.settings.gpus_per_worker)
    plan = plan.unpacked()
    start_ray(plan.settings.ray_address)
    found = training.inspection()
    if found is None:
        names = [label.name for label in plan.classes]
        splits = {TRAIN: plan.train, VAL: plan.val}
        findings = inspect(_look(plan), splits, plan.settings)
        found = summarise(findings, names, allow_overlap=plan.settings.allow_overlap)
        # Not before: data and classes that were refused may be mended under the run's name.
        training.start(plan)
        training.write_inspection(found)
    _say_inspection(plan, found)
    with tracking(plan) as track:
        fit(plan, found, lock.check, track)
        if plan.settings.find_rate:
            return None
        # Before MLflow is waited for, which may be away.
        return _finish(plan, training)


def _look(plan: TrainingPlan) -> Inspect:
    settings = plan.settings
    limits = settings.max_image_pixels, settings.max_image_s, settings.io_threads
    return Inspect(plan.storage, plan.coding, *limits)


def _say_inspection(plan: TrainingPlan, found: Inspection) -> None:
    for text in found.warnings:
        _log.warning("%s", text)
    batch_size, num_images = plan.stages[-1].recipe.batch_size, found.num_images[TRAIN]
    if batch_size > num_images:
        _log.warning(
            "batch_size=%d is more than the %d images to train on: every step shows images again; "
            "lower it",
            batch_size,
            num_images,
        )
    if (few := planned_too_few(plan)) is not None:
        _log.warning("%s", few)
    if not plan.val.num_rows:
        _log.warning("no val split: nothing judges the weights, the last ones are kept")
    _log.info(
        "%d images to train on, %d to judge by, %d classes",
        found.num_images[TRAIN],
        found.num_images.get(VAL, 0),
        len(plan.classes),
    )


def _finish(plan: TrainingPlan, training: TrainingRun) -> Checkpoint:
    """Give the best weights their record, so that `label` takes them."""
    data = training.read_checkpoint(BEST)
    if data is None:
        raise InputError(f"{training.checkpoint_uri(BEST)} is gone; give another run_name")
    record = completed(plan.stages[-1].record, data, _provenance(plan, training))
    training.write_model(record, data)
    if (few := done_too_few(plan, training.metrics())) is not None:
        _log.warning("%s", few)
    return record


def _provenance(plan: TrainingPlan, training: TrainingRun) -> dict[str, Any]:
    lines = training.metrics()
    best: dict[str, Any] = next((line for line in reversed(lines) if line["best"]), {})
    return {
        "data": plan.settings.data,
        "corrections": plan.settings.corrections,
        "train": plan.deciding[TRAIN],
        "val": plan.deciding[VAL],
        "recipe": plan.deciding["stages"][-1]["recipe"],
        "start": plan.start,
        "start_sha256": plan.deciding["weights"],
        "seed": plan.settings.seed,
        "run": plan.folder,
        "fingerprint": plan.fingerprint,
        "commit": commit(),
        "versions": versions(),
        "metrics": best,
    }
