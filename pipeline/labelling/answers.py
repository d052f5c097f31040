"""Answers: what earlier runs of a network have said of images, and which are asked for again.

An image is known by its id, which another version of the object does not have.
"""

import logging
from collections.abc import Iterator

import pyarrow as pa

from pipeline.errors import ErrorCode, InputError, StoreError
from pipeline.labelling.archive import ANSWERS, answers_of_run, archived_answers
from pipeline.labelling.history import History
from pipeline.labelling.staging import Staging
from pipeline.settings.label import LabelSettings

_log = logging.getLogger(__name__)

# A row of an earlier version stands for one attempt. Of several runs' answers for the same bytes
# one that lies in the bytes settles it.
_ANSWERED = """
    CREATE TABLE answered AS
    WITH rows AS (
        SELECT
            *,
            status = 'error' AS failed,
            list_contains($transient, error_code) AS passing,
            coalesce(
                CASE error_code
                    WHEN 'too_many_bytes' THEN num_bytes <= $max_image_bytes
                    WHEN 'too_many_pixels' THEN height::BIGINT * width <= $max_image_pixels
                    WHEN 'too_slow' THEN max_image_s < $max_image_s
                END,
                false
            ) AS admitted
        FROM earlier
    ),
    images AS (
        SELECT
            image_id,
            bool_or(NOT failed) AS labelled,
            bool_and(passing OR admitted) FILTER (failed) AS unsettled,
            bool_or(admitted) FILTER (failed) AS admitted,
            greatest(
                max(coalesce(attempts, 1)) FILTER (failed), count(*) FILTER (failed)
            ) AS attempts
        FROM rows
        GROUP BY image_id
    )
    SELECT
        image_id,
        labelled,
        attempts::INTEGER AS attempts,
        NOT labelled AND CASE $retry_failed
            WHEN 'none' THEN false
            WHEN 'all' THEN true
            ELSE unsettled AND (admitted OR attempts < $max_image_attempts)
        END AS again
    FROM images
"""


def stage_answers(
    staging: Staging, history: History, fingerprint: str, settings: LabelSettings
) -> None:
    """Make the table `answered`: what the published runs of a network have said.

    Its columns: image_id; labelled, whether the image has a mask; attempts, how often it failed;
    again, whether it is asked for again.

    Args:
        staging: Gets the table.
        history: The output's runs so far.
        fingerprint: Identifies the network and what decides its masks.
        settings: Those of the command: what is retried, and what the limits admit now.

    Raises:
        InputError: A table of a run is damaged.
    """
    _fill(staging, history, fingerprint)
    names = ("retry_failed", "max_image_attempts")
    limits = ("max_image_bytes", "max_image_pixels", "max_image_s")
    values = {name: getattr(settings, name) for name in (*names, *limits)}
    transient = [str(code) for code in ErrorCode if code.transient]
    staging.run(_ANSWERED, {**values, "transient": transient})
    staging.run("DROP TABLE earlier")


def _fill(staging: Staging, history: History, fingerprint: str) -> None:
    """Make the table `earlier`, by way of the archive if that is whole.

    A run, too, may have been removed since it was looked at: then all is looked at again, once.
    """
    try:
        staging.fill("earlier", ANSWERS, _earlier_rows(history, fingerprint))
    except (InputError, StoreError) as error:
        gone = isinstance(error, InputError) or error.code is ErrorCode.NOT_FOUND
        if not gone:
            raise
        _log.warning(
            "what earlier runs have said is gone or damaged, so each is read again: %s", error
        )
        history.leave_archive_aside()
        staging.run("DROP TABLE earlier")
        staging.fill("earlier", ANSWERS, _earlier_rows(history, fingerprint))


def _earlier_rows(history: History, fingerprint: str) -> Iterator[pa.Table]:
    archived: frozenset[str] = frozenset()
    if history.archive is not None:
        archived = history.archive.run_ids
        parts = history.archive.answers.get(fingerprint, ())
        yield from archived_answers(history.storage, history.output, parts)
    runs = [run for run in history.of_network(fingerprint) if run.run_id not in archived]
    # Only what is published counts: the commits of an unfinished run are in no table, and nobody
    # but its own command ever finishes it.
    for run, manifest in zip(runs, history.manifests(runs), strict=True):
        if manifest is not None:
            yield from answers_of_run(run, manifest)
