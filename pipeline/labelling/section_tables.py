"""The tables of a section, made of its commit records: one file of each, then the record.

In bounded memory: one file of each table, compressed, and the rows of a row group. The rows, their
order and their row groups follow from the commit records, whoever makes them, and how often.
"""

import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.images.masks import IGNORE_INDEX
from pipeline.labelling.class_statistics import IGNORED
from pipeline.labelling.committed import Versions, looked_up_versions
from pipeline.labelling.cost import Work, WorkSum
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import CLASS_STATISTICS, COMMIT, IMAGES, OK
from pipeline.labelling.section_record import SectionRecord, TableFile, section_uri, standing
from pipeline.labelling.sections import Section
from pipeline.labelling.sums import Sums, sums_of
from pipeline.memory import release_free_memory
from pipeline.store.parquet import DAMAGE, read_parquet
from pipeline.store.storage import Storage, sha256_hex

# What is held as columns at a time.
_IMAGES_AT_A_TIME = 500
_ROWS_PER_GROUP = 100_000


def publish_section(run: Run, section: Section) -> SectionRecord:
    """Write the tables of a section, then its record, unless they stand.

    Two that do so at once write the same.

    Args:
        run: The run of the section.
        section: All of whose shards are committed.

    Raises:
        StoreError: The store did not take it, or a shard has no commit record.
        InputError: A commit record is damaged.
    """
    of_section = section.of(run)
    if run.storage.exists(section_uri(run, section.number)):
        versions = looked_up_versions(of_section).digest(section.shards)
        if (record := standing(run, section, versions)) is not None:
            return record
    record = _publish(of_section, section)
    run.storage.write(section_uri(run, section.number), record.model_dump_json().encode())
    release_free_memory()
    return record


def _publish(run: Run, section: Section) -> SectionRecord:
    versions, sums = Versions(section.shards), Sums()
    images = _TableFile(run, "images", IMAGES)
    statistics = _TableFile(run, "class_statistics", CLASS_STATISTICS)

    def read(shard: int) -> bytes:
        # What is read is of this version: else the store refuses.
        entry = run.storage.stat(run.commit_uri(shard))
        versions.see(shard, entry.version)
        return run.storage.read_version(entry.uri, entry.version, entry.num_bytes, entry.num_bytes)

    for commits, work in _batches(run.commits(read=read)):
        rows = _statistics(run, commits)
        images.add(commits.select(IMAGES.names))
        statistics.add(rows)
        sums.add(sums_of(commits, rows, work))
    return SectionRecord(
        images=images.put(section.number),
        class_statistics=statistics.put(section.number),
        versions=versions.digest(section.shards),
        sums=sums,
    )


class _TableFile:
    """One file in the making: compressed, but for the rows that no row group has yet."""

    def __init__(self, run: Run, table: str, schema: pa.Schema) -> None:
        self._run = run
        self._table = table
        self._buffer = io.BytesIO()
        self._writer = pq.ParquetWriter(self._buffer, schema, compression="zstd")
        self._rows = schema.empty_table()
        self._num_rows = 0

    def add(self, rows: pa.Table) -> None:
        self._rows = pa.concat_tables([self._rows, rows])
        while self._rows.num_rows >= _ROWS_PER_GROUP:
            self._write(self._rows.slice(0, _ROWS_PER_GROUP))
            self._rows = self._rows.slice(_ROWS_PER_GROUP)

    def put(self, number: int) -> TableFile:
        if self._rows.num_rows:
            self._write(self._rows)
        self._writer.close()
        file = f"{self._table}/run={self._run.run_id}/part-{number:05d}.parquet"
        uri = f"{self._run.output}/{file}"
        data = _settle(self._run.storage, uri, self._buffer.getvalue())
        return TableFile(
            file=file, num_rows=self._num_rows, sha256=sha256_hex(data), num_bytes=len(data)
        )

    def _write(self, rows: pa.Table) -> None:
        self._writer.write_table(rows, row_group_size=_ROWS_PER_GROUP)
        self._num_rows += rows.num_rows


def _settle(storage: Storage, uri: str, data: bytes) -> bytes:
    """Write a file if there is none; what stands with the same rows stays, as another's may."""
    if storage.create(uri, data):
        return data
    there = storage.read(uri)
    if _has_rows_of(there, data):
        return there
    storage.write(uri, data)
    return data


def _has_rows_of(there: bytes, data: bytes) -> bool:
    try:
        return bool(read_parquet(there).equals(read_parquet(data)))
    except DAMAGE:
        return False


def _batches(commits: Iterator[pa.Table]) -> Iterator[tuple[pa.Table, WorkSum]]:
    batch: list[pa.Table] = []
    num_rows, work = 0, WorkSum()
    for table in commits:
        work.add(Work.of_metadata(table.schema.metadata), table.num_rows)
        # The write-ids of the records differ; a table made of them has none.
        batch.append(table.replace_schema_metadata(None))
        num_rows += table.num_rows
        if num_rows >= _IMAGES_AT_A_TIME:
            yield pa.concat_tables(batch), work
            batch, num_rows, work = [], 0, WorkSum()
    if batch:
        yield pa.concat_tables(batch), work


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
