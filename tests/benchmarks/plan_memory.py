"""A million-image plan: seconds and peak memory of listing, skipping, cutting and writing.

    python -m tests.benchmarks.plan_memory [NUM_IMAGES] [folder|manifest]

The listing is a generator, so that what is measured is the plan and not a disk; the keys are as
long as keys in real buckets are. The second draft is the nightly one: an earlier run has answered
for half of the images.
"""

import io
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.labelling.history import History
from pipeline.labelling.plan import draft, start_run
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import COMMIT
from pipeline.store.entry import Entry
from pipeline.store.storage import Storage
from tests.disk_runs import make_settings, network_record

_BUCKET = "s3://a-bucket-of-photographs"


@dataclass(frozen=True)
class _Million(Storage):
    """A disk for the output and, at s3://, a bucket of many images that are never stored."""

    num_images: int = 0

    def _entry(self, number: int) -> Entry:
        uri = f"{_BUCKET}/camera-{number % 97:03d}/2024/05/{number:032x}.jpg"
        return Entry(uri, f"{number * 0x9E3779B97F4A7C15 % (1 << 128):032x}", 200_000 + number % 7)

    def walk(self, folder_uri: str) -> Iterator[Entry]:
        if not folder_uri.startswith("s3://"):
            return super().walk(folder_uri)
        return (self._entry(number) for number in range(self.num_images))

    def stat(self, uri: str) -> Entry:
        if not uri.startswith("s3://"):
            return super().stat(uri)
        if uri == _BUCKET:
            return super().stat(f"file:///no/such/{uri}")
        if uri.endswith(".parquet"):
            return Entry(uri, "1", 1)
        return self._entry(int(uri[-36:-4], 16))

    def read(self, uri: str) -> bytes:
        if not uri.startswith("s3://"):
            return super().read(uri)
        uris = [self._entry(number).uri for number in range(self.num_images)]
        buffer = io.BytesIO()
        pq.write_table(pa.table({"uri": uris}), buffer)
        return buffer.getvalue()


@contextmanager
def _measured(what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what:<28}{seconds:8.1f} s   peak RSS so far {peak:7.0f} MiB", flush=True)


def _commit_half(run: Run) -> None:
    """Commit every second shard with rows as write makes them."""
    for part in run.plan():
        rows = part.drop_columns("mask_key")
        for name in COMMIT.names:
            if name not in rows.column_names:
                value = {"status": "ok", "height": 1024, "width": 2048}.get(name)
                column = pa.nulls(len(rows), COMMIT.field(name).type)
                rows = rows.append_column(
                    name, column if value is None else column.fill_null(value)
                )
        for shard in rows["shard"].unique().to_pylist()[::2]:
            buffer = io.BytesIO()
            pq.write_table(rows.filter(pc.equal(rows["shard"], shard)).select(COMMIT.names), buffer)
            run.storage.create(run.commit_uri(shard), buffer.getvalue())


def main(num_images: int, kind: str) -> None:
    """Draft, start the run, and draft again after half of it is committed."""
    storage = _Million(num_images=num_images)
    source = _BUCKET if kind == "folder" else f"{_BUCKET}/list.parquet"
    with tempfile.TemporaryDirectory() as name:
        settings = make_settings(Path(name), source, io_threads=16)
        network = network_record()
        with _measured(f"draft of {num_images:,}"):
            drafted = draft(History(storage, settings.output), settings, network)
        with _measured(f"start, {drafted.num_shards:,} shards"):
            run = start_run(storage, settings, network, drafted)
        assert run.record.num_images == num_images
        _commit_half(run)
        with _measured("what is missing"):
            missing = run.missing()
        assert len(missing) == drafted.num_shards // 2
        del drafted
        with _measured("second draft"):
            drafted = draft(History(storage, settings.output), settings, network)
        print(f"{drafted.num_skipped:,} skipped, {drafted.images.num_rows:,} left")


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000,
        sys.argv[2] if len(sys.argv) > 2 else "folder",
    )
