"""`label`: the labelling job."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial

from jobs.cluster import start_ray
from jobs.settings import read_settings
from pipeline import report
from pipeline.config import LabelSettings
from pipeline.errors import EXIT_OK, EXIT_TOO_MANY_BAD_IMAGES
from pipeline.flow import label
from pipeline.job import Outcome, open_job

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
    job = open_job(settings)
    if job.record.untrained:
        _log.warning(
            "weights=%s: THE NETWORK IS UNTRAINED, its masks mean nothing", settings.weights
        )
    outcome = label(job, partial(start_ray, settings))
    _say(outcome)
    return exit_code(outcome, settings.max_error_rate)


def exit_code(outcome: Outcome, max_error_rate: float) -> int:
    """Judge a finished run by its error budget, and say so in the log.

    Args:
        outcome: Of the run.
        max_error_rate: The budget, 0 to 1.
    """
    rate = outcome.num_failed / outcome.num_images if outcome.num_images else 0.0
    if rate <= max_error_rate:
        return EXIT_OK
    _log.error(
        "%d of %d images failed (%.2f %%), max_error_rate allows %.2f %%; everything is committed",
        outcome.num_failed,
        outcome.num_images,
        100 * rate,
        100 * max_error_rate,
    )
    return EXIT_TOO_MANY_BAD_IMAGES


def _say(outcome: Outcome) -> None:
    if outcome.run is None or outcome.manifest is None:
        print(
            f"Nothing to do: all {outcome.num_images} images were labelled before, "
            f"{outcome.num_failed} of them failed."
        )
        return
    print(report.as_text(outcome.run, outcome.manifest))
    if outcome.images_per_s is None:
        print("\nNothing to do: the run was finished before.")
    elif outcome.images_per_s:
        print(f"\n{outcome.images_per_s:.1f} images/s, start-up included")
