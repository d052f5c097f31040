"""`label`: the labelling job."""

import logging

from jobs.logs.output import say
from pipeline.errors import EXIT_OK, EXIT_TOO_MANY_BAD_IMAGES
from pipeline.labelling import report
from pipeline.labelling.flow import label
from pipeline.labelling.records import Manifest
from pipeline.labelling.session import Outcome, open_job
from pipeline.settings.label import LabelSettings

_log = logging.getLogger(__name__)


def run(settings: LabelSettings) -> int:
    """Label an input.

    Args:
        settings: From file, environment and flags.

    Returns:
        The exit code.
    """
    job = open_job(settings)
    if job.record.untrained:
        _log.warning(
            "weights=%s: THE NETWORK IS UNTRAINED, its masks mean nothing", settings.weights
        )
    outcome = label(job)
    _say(outcome)
    return exit_code(outcome, settings.max_error_rate)


def exit_code(outcome: Outcome, max_error_rate: float) -> int:
    """Judge what was done by the error budget, and say so in the log.

    Args:
        outcome: What the command has come to.
        max_error_rate: The budget, 0 to 1.
    """
    if outcome.error_rate <= max_error_rate:
        return EXIT_OK
    _log.error(
        "%.2f %% of the images have no mask (%d of %d in this run, %d of %d done before), "
        "max_error_rate allows %.2f %%; everything is committed: mend these images, or allow more",
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
        share = 100 * manifest.work.busy_share
        words = "networks computed %.0f %% of the replicas' time: %s"
        _log.info(words, share, manifest.bottleneck, extra=fields)
