"""Publish: commit records -> the two tables, the manifest, the report, `_SUCCESS`.

In: a run of which every shard has its commit. Out: its manifest.

Runs on the driver, in bounded memory. All of it is computed from the commit records, so that a
publication that was cut off is simply done again, with the same bytes.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import ErrorCode, StoreError
from pipeline.images.masks import IGNORE_COLOR, IGNORE_INDEX
from pipeline.labelling.advice import price_per_thousand, verdict
from pipeline.labelling.class_statistics import IGNORED, ClassTotals
from pipeline.labelling.confidences import NUM_BINS, count_confidences
from pipeline.labelling.cost import Work, WorkSum
from pipeline.labelling.runs import (
    NUM_FAILED_KEPT,
    ClassRecord,
    ClassTotal,
    FailedImage,
    Manifest,
    NetworkRecord,
    Run,
    TablePart,
)
from pipeline.labelling.schema import CLASS_STATISTICS, COMMIT, ERROR, IMAGES, OK
from pipeline.store.storage import sha256_hex

_IMAGES_PER_FILE = 100_000
# What is held as columns at a time, and becomes a row group of the tables.
_IMAGES_AT_A_TIME = 500


def publish(run: Run, render: Callable[[Manifest], str]) -> Manifest:
    """Publish a run that is committed to the last shard: a record for every shard of the plan.

    Args:
        run: The run.
        render: Makes the report, as HTML.

    Returns:
        The manifest that stands in the output.

    Raises:
        StoreError: The store did not take it, or a shard has no commit record; call again.
        InputError: A commit record is damaged.
    """
    manifest = run.manifest() or _publish_tables(run)
    run.storage.write(f"{run.folder}/report.html", render(manifest).encode())
    run.storage.remove_leftovers(run.masks_folder)
    run.storage.remove_leftovers(run.folder)
    run.storage.create(run.success_uri, b"")
    return manifest


def _publish_tables(run: Run) -> Manifest:
    _check_committed(run)
    totals = _Totals()
    images = _TableWriter(run, "images", IMAGES)
    statistics = _TableWriter(run, "class_statistics", CLASS_STATISTICS)
    for commits in _batches(run.commits(), totals.work):
        table = _statistics(run, commits)
        totals.add(commits, table)
        for writer, rows in ((images, commits.select(IMAGES.names)), (statistics, table)):
            writer.add(rows, num_images=commits.num_rows)
    manifest = totals.manifest(run, images.close(), statistics.close())
    run.storage.create(run.manifest_uri, manifest.model_dump_json(indent=1).encode())
    standing = run.manifest()
    assert standing is not None, f"{run.manifest_uri} was written and is not there"
    return standing


def _check_committed(run: Run) -> None:
    """Refuse to begin a table that would lack a shard. Raises StoreError."""
    if lost := run.uncommitted():
        raise StoreError(
            ErrorCode.NOT_FOUND,
            f"{len(lost)} of {run.record.num_shards} shards of run {run.run_id} have no commit "
            f"record, the first is shard {lost[0]}",
        )


class _TableWriter:
    """Writes one table as files of up to `_IMAGES_PER_FILE` images; holds one file, compressed."""

    def __init__(self, run: Run, table_name: str, schema: pa.Schema) -> None:
        self._run = run
        self._table_name = table_name
        self._schema = schema
        self._parts: list[TablePart] = []
        self._open()

    def add(self, rows: pa.Table, num_images: int) -> None:
        self._writer.write_table(rows)
        self._num_rows += rows.num_rows
        self._num_images += num_images
        if self._num_images >= _IMAGES_PER_FILE:
            self._put()
            self._open()

    def close(self) -> list[TablePart]:
        if self._num_images:
            self._put()
        return self._parts

    def _open(self) -> None:
        self._buffer = io.BytesIO()
        self._writer = pq.ParquetWriter(self._buffer, self._schema, compression="zstd")
        self._num_rows = self._num_images = 0

    def _put(self) -> None:
        self._writer.close()
        data = self._buffer.getvalue()
        number = len(self._parts)
        file = f"{self._table_name}/run={self._run.run_id}/part-{number:05d}.parquet"
        self._run.storage.write(f"{self._run.output}/{file}", data)
        self._parts.append(TablePart(file=file, num_rows=self._num_rows, sha256=sha256_hex(data)))


class _Mean:
    """A mean of column after column, of which null is no part."""

    def __init__(self) -> None:
        self._sum, self._number = 0.0, 0

    def add(self, column: pa.ChunkedArray) -> None:
        self._sum += pc.sum(column).as_py() or 0.0
        self._number += len(column) - column.null_count

    def value(self) -> float | None:
        return self._sum / self._number if self._number else None


class _Totals:
    """Sums over the commit records."""

    def __init__(self) -> None:
        self.num_images = self.num_ok = self.num_pixels = 0
        self.num_retried = self.num_retried_failed = 0
        self.errors: Counter[str] = Counter()
        self.failed: list[FailedImage] = []
        self.classes = ClassTotals()
        self.confidence = _Mean()
        self.confidences = [0] * NUM_BINS
        self.work = WorkSum()
        self.finished_at: datetime | None = None

    def add(self, commits: pa.Table, statistics: pa.Table) -> None:
        succeeded = commits.filter(pc.equal(commits["status"], OK))
        self.num_images += commits.num_rows
        self.num_ok += succeeded.num_rows
        self._add_retried(commits)
        heights = succeeded["height"].cast(pa.int64())
        self.num_pixels += pc.sum(pc.multiply(heights, succeeded["width"])).as_py() or 0
        self.errors.update(code for code in commits["error_code"].to_pylist() if code)
        self._keep_failed(commits)
        self.classes.add(statistics)
        self.confidence.add(succeeded["mean_confidence"])
        counts = count_confidences(succeeded["mean_confidence"])
        self.confidences = [*map(sum, zip(self.confidences, counts, strict=True))]
        latest = pc.max(commits["labelled_at"]).as_py()
        self.finished_at = max(filter(None, (self.finished_at, latest)), default=None)

    def _keep_failed(self, commits: pa.Table) -> None:
        if left := NUM_FAILED_KEPT - len(self.failed):
            failed = commits.filter(pc.equal(commits["status"], ERROR)).slice(0, left)
            rows = failed.select(list(FailedImage.model_fields)).to_pylist()
            self.failed += [FailedImage(**row) for row in rows]

    def _add_retried(self, commits: pa.Table) -> None:
        retried = commits.filter(pc.greater(commits["attempts"], 1))
        self.num_retried += retried.num_rows
        self.num_retried_failed += retried.filter(pc.not_equal(retried["status"], OK)).num_rows

    def _classes(self, network: NetworkRecord) -> list[ClassRecord]:
        """Return the network's classes, and at last what it ignored, if it has."""
        ignored = ClassRecord(id=IGNORE_INDEX, name=IGNORED, color=IGNORE_COLOR)
        return [*network.classes, *([ignored] if self.classes.pixels[IGNORE_INDEX] else [])]

    def _of_class(self, label: ClassRecord) -> ClassTotal:
        return ClassTotal(
            id=label.id,
            name=label.name,
            color=label.color,
            num_pixels=self.classes.pixels[label.id],
            num_images=self.classes.images[label.id],
            mean_confidence=self.classes.mean_confidence(label.id),
        )

    def manifest(self, run: Run, images: list[TablePart], statistics: list[TablePart]) -> Manifest:
        record, work = run.record, self.work.totals()
        price = record.settings.get("price_per_node_hour")
        return Manifest(
            run_id=record.run_id,
            fingerprint=record.network.fingerprint,
            input=record.input,
            untrained=record.network.untrained,
            created_at=record.created_at,
            finished_at=self.finished_at or record.created_at,
            num_images=self.num_images,
            num_ok=self.num_ok,
            num_failed=self.num_images - self.num_ok,
            num_skipped=record.num_skipped,
            num_skipped_failed=record.num_skipped_failed,
            num_retried=self.num_retried,
            num_retried_failed=self.num_retried_failed,
            num_shards=record.num_shards,
            num_pixels=self.num_pixels,
            errors={str(code): self.errors[code] for code in ErrorCode if self.errors[code]},
            failed=self.failed,
            classes=[self._of_class(label) for label in self._classes(record.network)],
            images=images,
            class_statistics=statistics,
            mean_confidence=self.confidence.value(),
            confidences=self.confidences,
            timeline=self.work.timeline.total(),
            work=work,
            bottleneck=verdict(work) if work.replica_seconds else "",
            price_per_thousand_images=price_per_thousand(work, self.num_images, price),
        )


def _batches(commits: Iterator[pa.Table], work: WorkSum) -> Iterator[pa.Table]:
    batch: list[pa.Table] = []
    num_rows = 0
    for table in commits:
        work.add(Work.of_metadata(table.schema.metadata), table.num_rows)
        # The write-ids of the records differ; a table made of them has none.
        batch.append(table.replace_schema_metadata(None))
        num_rows += table.num_rows
        if num_rows >= _IMAGES_AT_A_TIME:
            yield pa.concat_tables(batch)
            batch, num_rows = [], 0
    if batch:
        yield pa.concat_tables(batch)


def _statistics(run: Run, commits: pa.Table) -> pa.Table:
    """Make a row of every image and class; as columns, since Python objects are ten times that."""
    images = commits.filter(pc.equal(commits["status"], OK)).combine_chunks()
    classes = pa.concat_arrays(
        images["classes"].chunks or [pa.array([], COMMIT.field("classes").type)]
    )
    of_image = images.drop_columns("classes").take(pc.list_parent_indices(classes))
    flat = pc.list_flatten(classes)
    pixel_count, class_id = pc.struct_field(flat, "pixel_count"), pc.struct_field(flat, "class_id")
    num_pixels = pc.multiply(of_image["height"].cast(pa.int64()), of_image["width"])
    names = [label.name for label in run.record.network.classes]
    by_index = pa.array([*names, *[None] * (IGNORE_INDEX - len(names)), IGNORED])
    columns = {
        "image_id": of_image["image_id"],
        "key": of_image["key"],
        "class_id": class_id,
        "class_name": by_index.take(class_id),
        "pixel_count": pixel_count,
        "pixel_fraction": pc.divide(pixel_count.cast(pa.float64()), num_pixels.cast(pa.float64())),
        "mean_confidence": pc.struct_field(flat, "mean_confidence"),
        "run_id": of_image["run_id"],
    }
    return pa.table(columns, CLASS_STATISTICS)
