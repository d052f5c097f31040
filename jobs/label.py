"""`label`: the labelling job."""

import logging
import threading
from collections.abc import Mapping, Sequence
from functools import partial

from jobs.logs import logs
from jobs.logs.output import say
from jobs.settings.parser import read_settings
from pipeline.cluster.connect import connect
from pipeline.errors import EXIT_OK, EXIT_TOO_MANY_BAD_IMAGES
from pipeline.inputs.listing import Source
from pipeline.labelling import report
from pipeline.labelling.flow import Observer, label
from pipeline.labelling.replicas import BESIDE_CPUS, choose_replicas
from pipeline.labelling.runs import Manifest, Run, read_shard
from pipeline.labelling.schema import ShardTask
from pipeline.labelling.session import Job, Outcome, open_job
from pipeline.labelling.shard_lines import ShardLines
from pipeline.settings.label import LabelSettings
from pipeline.settings.shared import LogFormat

_log = logging.getLogger(__name__)


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Label an input.

    Args:
        argv: Flags.
        environ: Environment variables.

    Returns:
        The exit code.
    """
    settings = read_settings(LabelSettings, "label", argv, environ)
    logs.configure(settings.log_format)
    job = open_job(settings)
    if job.record.untrained:
        _log.warning(
            "weights=%s: THE NETWORK IS UNTRAINED, its masks mean nothing", settings.weights
        )
    outcome = label_observed(job)
    _say(outcome)
    return exit_code(outcome, settings.max_error_rate)


def label_observed(job: Job) -> Outcome:
    """Do a job on Ray, so that log lines say its run and metrics count its shards.

    Args:
        job: What to do.

    Raises:
        PipelineError: As `pipeline.labelling.flow.label`, `connect`, `check_start` and
            `wait_for_room`.
    """
    settings, ended = job.settings, threading.Event()
    begin = partial(_begin, settings.log_format)
    try:
        return label(job, begin, partial(_open_ray, settings, ended))
    finally:
        ended.set()


def _begin(log_format: LogFormat, run: Run) -> None:
    logs.configure(log_format, run.run_id, run.attempt)


def _open_ray(
    settings: LabelSettings, ended: threading.Event, run: Run, todo: list[ShardTask]
) -> Observer:
    connect(settings.ray_address)
    # Ray takes seconds to import, which a run with nothing to do must not wait for.
    from pipeline.cluster.nodes import alive_nodes  # noqa: PLC0415
    from pipeline.labelling.prometheus import RunMetrics  # noqa: PLC0415

    if len(alive_nodes()) > 1:
        _check_start(settings, run, todo[0])
    metrics = RunMetrics(run, run.num_images(todo), ended)
    # The metrics show a run also while it waits.
    if settings.ray_address is not None:
        _wait_for_room(settings, len(todo))
    # For people there are the lines of progress.
    return ShardLines(metrics) if settings.log_format == "json" else metrics


def _check_start(settings: LabelSettings, run: Run, shard: ShardTask) -> None:
    from jobs.doctor.start import check_start  # noqa: PLC0415 - it loads Ray

    image = read_shard(run.storage, shard)[0]
    source = Source(image["key"], image["uri"], image["etag"], image["num_bytes"])
    check_start(settings, source, min(settings.max_shard_bytes, run.record.num_bytes))


def _wait_for_room(settings: LabelSettings, num_shards: int) -> None:
    from pipeline.cluster.actor_pool import watch_replicas  # noqa: PLC0415 - as above
    from pipeline.cluster.nodes import alive_nodes  # noqa: PLC0415 - as above
    from pipeline.cluster.reservation import wait_for_room  # noqa: PLC0415 - as above

    number = min(settings.min_replicas, num_shards)
    each = choose_replicas(settings, alive_nodes(), number).resources
    room = wait_for_room(number, "replica(s)", each, {"CPU": BESIDE_CPUS}, settings)
    watch_replicas(room, min(settings.max_replicas or num_shards, num_shards))


def exit_code(outcome: Outcome, max_error_rate: float) -> int:
    """Judge what was done by the error budget, and say so in the log.

    Args:
        outcome: Of the command.
        max_error_rate: The budget, 0 to 1.
    """
    if outcome.error_rate <= max_error_rate:
        return EXIT_OK
    _log.error(
        "%.2f %% of the images have no mask (%d of %d in this run, %d of %d done before), "
        "max_error_rate allows %.2f %%; everything is committed",
        100 * outcome.error_rate,
        outcome.num_failed,
        outcome.num_images,
        outcome.num_skipped_failed,
        outcome.num_skipped,
        100 * max_error_rate,
    )
    return EXIT_TOO_MANY_BAD_IMAGES


def _say(outcome: Outcome) -> None:
    if outcome.run is None or outcome.manifest is None:
        say(
            f"Nothing to do: all {outcome.num_skipped} images were done before, "
            f"{outcome.num_skipped_failed} of them failed."
        )
        return
    if outcome.images_per_s is not None:
        _log_cost(outcome.manifest)
    say(report.as_text(outcome.run, outcome.manifest))
    if outcome.images_per_s is None:
        say("\nNothing to do: the run was finished before.")
    elif outcome.images_per_s:
        say(f"\n{outcome.images_per_s:.1f} images/s, loading of the network included")


def _log_cost(manifest: Manifest) -> None:
    """Say it in the log, too, which may be all that is kept of a job."""
    if manifest.work is not None and manifest.bottleneck:
        price = manifest.price_per_thousand_images
        fields = {**manifest.work.model_dump(), "price_per_thousand_images": price}
        busy = 100 * manifest.work.busy_share
        _log.info("replicas busy %.0f %%: %s", busy, manifest.bottleneck, extra=fields)
