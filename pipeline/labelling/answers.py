"""Answers: what earlier runs of a network have said of images, and which are asked for again.

An image is known by its id, which another version of the object does not have.
"""

from collections.abc import Iterator

import pyarrow as pa

from pipeline.errors import ErrorCode
from pipeline.labelling.history import History
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import IMAGES
from pipeline.labelling.staging import Staging
from pipeline.settings.label import LabelSettings

_COLUMNS = ["image_id", "status", "error_code", "num_bytes", "height", "width", "attempts"]
_SCHEMA = pa.schema([IMAGES.field(name) for name in _COLUMNS])
# The limit that a row's run had; no table holds it, only the run's record.
_LIMIT_S = pa.field("max_image_s", pa.float64())

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
        history: Of the output.
        fingerprint: Of the network.
        settings: Of the command: what is retried, and what the limits admit now.

    Raises:
        InputError: A table of a run is damaged.
    """
    staging.fill("earlier", _SCHEMA.append(_LIMIT_S), _earlier_rows(history, fingerprint))
    names = ("retry_failed", "max_image_attempts")
    limits = ("max_image_bytes", "max_image_pixels", "max_image_s")
    values = {name: getattr(settings, name) for name in (*names, *limits)}
    transient = [str(code) for code in ErrorCode if code.transient]
    staging.run(_ANSWERED, {**values, "transient": transient})
    staging.run("DROP TABLE earlier")


def _earlier_rows(history: History, fingerprint: str) -> Iterator[pa.Table]:
    runs = history.of_network(fingerprint)
    # Only what is published counts: the commits of an unfinished run are in no table, and nobody
    # but its own command ever finishes it.
    for run, manifest in zip(runs, history.manifests(runs), strict=True):
        if manifest is not None:
            for table in run.published(manifest, _COLUMNS):
                yield table.cast(_SCHEMA).append_column(_LIMIT_S, _limits_s(run, table.num_rows))


def _limits_s(run: Run, num_rows: int) -> pa.Array:
    limit_s = run.record.settings.get(_LIMIT_S.name)
    return pa.array([limit_s] * num_rows, _LIMIT_S.type)
