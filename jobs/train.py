"""`train`: a network from labelled images, on one machine or a cluster."""

import logging

from fcn.weights.record import Checkpoint
from jobs.logs.output import say
from pipeline.errors import EXIT_OK
from pipeline.log_context import belong_to
from pipeline.settings.train import TrainSettings
from pipeline.store.lock import Lock
from pipeline.store.probe import writable_storage
from pipeline.training.plan import open_plan
from pipeline.training.rate_range import Tried
from pipeline.training.run_folder import TrainingRun
from pipeline.training.seeds import describe_seeds, runs_of

_log = logging.getLogger(__name__)


def run(settings: TrainSettings) -> int:
    """Train a network, or resume its training; one after the other with several seeds.

    Args:
        settings: From file, environment and flags.

    Returns:
        The exit code.

    Raises:
        PipelineError: As `pipeline.errors` says, each with its exit code.
    """
    records = [_train(one) for one in runs_of(settings)]
    if settings.num_seeds > 1:
        say(describe_seeds([record for record in records if record is not None]))
    return EXIT_OK


def _train(settings: TrainSettings) -> Checkpoint | None:
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
        belong_to(settings.run_name, lock.number)
        training.check(plan)
        record = training.model()
        if record is None:
            # Ray and torch take seconds to import, which a finished run must not wait for.
            from pipeline.training.driver import train  # noqa: PLC0415

            record = train(plan, training, lock)
        else:
            say("Nothing to do: the run was finished before.")
    if record is None:
        say(f"{Tried.from_csv(training.rates()).describe()}\n\n  {training.rates_uri}")
    else:
        say(_describe(training, record))
    return record


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
