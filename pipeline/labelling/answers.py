"""Answers: what earlier runs of a network have said of images, and which are asked for again.

An image is known by its id, which another version of the object does not have.
"""

import functools
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ErrorCode
from pipeline.labelling.history import History
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import ERROR, IMAGES, OK
from pipeline.settings.label import LabelSettings

_COLUMNS = ["image_id", "status", "error_code", "num_bytes", "height", "width", "attempts"]
_SCHEMA = pa.schema([IMAGES.field(name) for name in _COLUMNS])
# The limit that a row's run had; no table holds it, only the run's record.
_LIMIT_S = pa.field("max_image_s", pa.float64())


@dataclass(frozen=True)
class Answers:
    """What is known of images.

    Attributes:
        done: Ids of those that need not be labelled.
        failed: Of all ids, those without a mask.
        attempts: Columns image_id and attempts: of the failed ones that are asked for again.
    """

    done: pa.Array
    failed: pa.Array
    attempts: pa.Table

    def count_attempts(self, images: pa.Table) -> pa.Table:
        """Number each planned image's attempt: the first, or one more than there have been.

        Args:
            images: Columns of `schema.PLAN` without the shard.
        """
        place = pc.index_in(images["image_id"], self.attempts["image_id"])
        again = pc.add(self.attempts["attempts"].combine_chunks().take(place), 1)
        column = pc.fill_null(again, 1).cast(pa.int32())
        return images.set_column(images.column_names.index("attempts"), "attempts", column)


def answers(history: History, fingerprint: str, settings: LabelSettings) -> Answers:
    """Read what the published runs of a network have said.

    Args:
        history: Of the output.
        fingerprint: Of the network.
        settings: Of the command: what is retried, and what the limits admit now.

    Raises:
        InputError: A table of a run is damaged.
    """
    earlier = _earlier_rows(history, fingerprint)
    succeeded = earlier.filter(pc.equal(earlier["status"], OK))["image_id"].unique()
    failed = earlier.filter(pc.equal(earlier["status"], ERROR))
    failed = failed.filter(pc.invert(pc.is_in(failed["image_id"], succeeded)))
    tried = _attempts(failed)
    again = _to_retry(failed, tried, settings)
    kept = failed.filter(pc.invert(pc.is_in(failed["image_id"], again)))["image_id"].unique()
    return Answers(
        done=pa.concat_arrays([succeeded, kept]),
        failed=failed["image_id"].unique(),
        attempts=tried.filter(pc.is_in(tried["image_id"], again)),
    )


def _earlier_rows(history: History, fingerprint: str) -> pa.Table:
    runs = history.of_network(fingerprint)
    # Only what is published counts: the commits of an unfinished run are in no table, and nobody
    # but its own command ever finishes it.
    tables = (
        table.cast(_SCHEMA).append_column(_LIMIT_S, _limits_s(run, table.num_rows))
        for run, manifest in zip(runs, history.manifests(runs), strict=True)
        if manifest is not None
        for table in run.published(manifest, _COLUMNS)
    )
    return pa.concat_tables([_SCHEMA.append(_LIMIT_S).empty_table(), *tables])


def _limits_s(run: Run, num_rows: int) -> pa.Array:
    limit_s = run.record.settings.get(_LIMIT_S.name)
    return pa.array([limit_s] * num_rows, _LIMIT_S.type)


def _attempts(failed: pa.Table) -> pa.Table:
    """Count how often each image has failed: a row of an earlier version stands for one time."""
    numbered = failed.select(["image_id"]).append_column(
        "attempts", pc.fill_null(failed["attempts"], 1)
    )
    found = numbered.group_by("image_id").aggregate([("attempts", "max"), ("attempts", "count")])
    most = pc.max_element_wise(found["attempts_max"].cast(pa.int64()), found["attempts_count"])
    return pa.table({"image_id": found["image_id"], "attempts": most})


def _to_retry(failed: pa.Table, tried: pa.Table, settings: LabelSettings) -> pa.Array:
    if settings.retry_failed == "none":
        return pa.array([], pa.string())
    if settings.retry_failed == "all":
        return failed["image_id"].unique()
    spent = tried.filter(pc.greater_equal(tried["attempts"], settings.max_image_attempts))
    again = pc.or_(
        pc.and_(_passing(failed), pc.invert(pc.is_in(failed["image_id"], spent["image_id"]))),
        _admitted(failed, settings),
    )
    # Of several runs' answers for the same bytes one that lies in the bytes settles it.
    settled = pc.invert(pc.or_(_passing(failed), _admitted(failed, settings)))
    hopeless = failed.filter(settled)["image_id"].unique()
    again = pc.and_(again, pc.invert(pc.is_in(failed["image_id"], hopeless)))
    return failed.filter(again)["image_id"].unique()


def _passing(failed: pa.Table) -> pa.ChunkedArray:
    """Whether the cause of each failure may be gone by now."""
    transient = [str(code) for code in ErrorCode if code.transient]
    return pc.is_in(failed["error_code"], pa.array(transient))


def _admitted(failed: pa.Table, settings: LabelSettings) -> pa.ChunkedArray:
    """Whether each was too large, or too slow, for a limit that is higher now."""
    num_pixels = pc.multiply(failed["height"].cast(pa.int64()), failed["width"].cast(pa.int64()))
    fits_bytes = pc.and_(
        pc.equal(failed["error_code"], ErrorCode.TOO_MANY_BYTES),
        pc.less_equal(failed["num_bytes"], settings.max_image_bytes),
    )
    fits_pixels = pc.and_(
        pc.equal(failed["error_code"], ErrorCode.TOO_MANY_PIXELS),
        pc.less_equal(num_pixels, settings.max_image_pixels),
    )
    fits_time = pc.and_(
        pc.equal(failed["error_code"], ErrorCode.TOO_SLOW),
        pc.less(failed[_LIMIT_S.name], settings.max_image_s),
    )
    fits = (pc.fill_null(one, fill_value=False) for one in (fits_bytes, fits_pixels, fits_time))
    return functools.reduce(pc.or_, fits)
