"""`train`: a network from labelled images, on one machine or a cluster."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fcn.weights.record import Checkpoint
from jobs import logs
from jobs.output import say
from jobs.settings.parser import read_settings
from jobs.training.plan import TrainingPlan, commit, open_plan
from jobs.training.run import BEST, TrainingRun, completed
from pipeline.cluster.connect import start_ray
from pipeline.errors import EXIT_OK, InputError
from pipeline.inputs.inspect import Inspect, Inspection, summarise
from pipeline.inputs.layouts import TRAIN, VAL
from pipeline.settings.train import TrainSettings
from pipeline.store.lock import Lock
from pipeline.store.probe import writable_storage
from pipeline.versions import versions

_log = logging.getLogger(__name__)


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Train a network, or go on with its training.

    Args:
        argv: Flags.
        environ: Environment variables.

    Returns:
        The exit code.

    Raises:
        PipelineError: As `pipeline.errors` says, each with its exit code.
    """
    settings = read_settings(TrainSettings, "train", argv, environ)
    logs.configure(settings.log_format)
    plan = open_plan(settings)
    if settings.recipe != "modern" and plan.start is None:
        _log.warning(
            "recipe=%s without weights: its rates are for weights that exist already; from "
            "scratch little is learned",
            settings.recipe,
        )
    # It knows whether the store has put-if-absent: run.json must not be written over.
    storage = writable_storage(plan.storage, plan.folder)
    training = TrainingRun(storage, plan.folder)
    with Lock(storage, f"{plan.folder}/locks", settings.lock_lease_s) as lock:
        logs.configure(settings.log_format, settings.run_name, lock.number)
        training.check(plan)
        record = training.model()
        if record is None:
            record = _train(plan, training, lock)
        else:
            say("Nothing to do: the run was finished before.")
    say(_describe(training, record))
    return EXIT_OK


def _train(plan: TrainingPlan, training: TrainingRun, lock: Lock) -> Checkpoint:
    start_ray(plan.settings.ray_address)
    # Ray and torch take seconds to import, which a setting's error must not wait for.
    from jobs.training.fit import fit  # noqa: PLC0415
    from pipeline.cluster.inspection import inspect  # noqa: PLC0415
    from pipeline.cluster.tasks import wait_for_a_task  # noqa: PLC0415

    found = training.inspection()
    if found is None:
        if plan.settings.ray_address is not None:
            wait_for_a_task(plan.settings)
        names = [label.name for label in plan.classes]
        findings = inspect(_look(plan), {TRAIN: plan.train, VAL: plan.val})
        found = summarise(findings, names, allow_overlap=plan.settings.allow_overlap)
        # Not before: data and classes that were refused may be mended under the run's name.
        training.start(plan)
        training.write_inspection(found)
    _say_inspection(plan, found)
    fit(plan, found, lock.check)
    return _finish(plan, training)


def _look(plan: TrainingPlan) -> Inspect:
    settings = plan.settings
    return Inspect(plan.storage, plan.coding, settings.max_image_pixels, settings.io_threads)


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
    return record


def _provenance(plan: TrainingPlan, training: TrainingRun) -> dict[str, Any]:
    lines = training.metrics()
    best: dict[str, Any] = next((line for line in reversed(lines) if line["best"]), {})
    return {
        "data": plan.settings.data,
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


def _describe(training: TrainingRun, record: Checkpoint) -> str:
    metrics = record.provenance["metrics"]
    lines = [f"{record.network}, {record.num_classes} classes: {training.model_uri}"]
    if "mean_iu" in metrics:
        found = (
            f"  epoch {metrics['epoch']:g}, on val: mean IU {metrics['mean_iu']:.4f}, pixel "
            f"accuracy {metrics['pixel_accuracy']:.4f}, mean accuracy "
            f"{metrics['mean_accuracy']:.4f}, f.w. IU {metrics['frequency_weighted_iu']:.4f}"
        )
        lines += [found, "", f"  {'class':<24}{'IU':>8}"]
        for name, share in metrics["class_iu"].items():
            lines.append(f"  {name[:23]:<24}{'absent' if share is None else f'{share:.4f}':>8}")
    lines += ["", f"label images with --weights {training.model_uri}"]
    return "\n".join(lines)
