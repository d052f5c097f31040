"""A plan of many images: seconds and peak memory of listing, skipping, cutting and writing.

    python -m tests.benchmarks.plan_memory [NUM_IMAGES] [folder|manifest]

The listing is a generator, so that what is measured is the plan and not a disk; the keys are as
long as keys in real buckets are. The second night's draft finds that the first has answered for
half of the images.
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
import pyarrow.parquet as pq

from pipeline.labelling.draft import draft
from pipeline.labelling.history import History
from pipeline.labelling.plan import start_run
from pipeline.labelling.records import Manifest, TablePart
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import IMAGES
from pipeline.store.entry import Entry
from pipeline.store.storage import Storage
from tests.disk_runs import make_settings, network_record

BUCKET = "s3://a-bucket-of-photographs"


@dataclass(frozen=True)
class Many(Storage):
    """A disk for the output and, at s3://, a bucket of many images that are never stored."""

    num_images: int = 0
    first: int = 0

    def _entry(self, number: int) -> Entry:
        uri = f"{BUCKET}/camera-{number % 97:03d}/2024/05/{number:032x}.jpg"
        return Entry(uri, f"{number * 0x9E3779B97F4A7C15 % (1 << 128):032x}", 200_000 + number % 7)

    def walk(self, folder_uri: str) -> Iterator[Entry]:
        if not folder_uri.startswith("s3://"):
            return super().walk(folder_uri)
        return (self._entry(number) for number in range(self.first, self.num_images))

    def stat(self, uri: str) -> Entry:
        if not uri.startswith("s3://"):
            return super().stat(uri)
        if uri == BUCKET:
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
def measured(what: str) -> Iterator[None]:
    start, cpu = time.perf_counter(), time.process_time()
    yield
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{what:<32}{seconds:8.1f} s  {cpu:8.1f} s CPU   peak RSS so far {peak:7.0f} MiB",
        flush=True,
    )


def finish(run: Run) -> None:
    """Publish rows for all images of a run, as publish does, without masks and commits."""
    parts = [_publish(run, number, rows) for number, rows in enumerate(run.plan())]
    now = run.record.created_at
    manifest = Manifest(
        run_id=run.run_id,
        fingerprint=run.record.network.fingerprint,
        input=run.record.input,
        untrained=True,
        created_at=now,
        finished_at=now,
        num_images=run.record.num_images,
        num_ok=run.record.num_images,
        num_failed=0,
        num_skipped=0,
        num_skipped_failed=0,
        num_shards=run.record.num_shards,
        num_pixels=0,
        errors={},
        classes=[],
        images=parts,
        class_statistics=[],
    )
    run.storage.create(run.manifest_uri, manifest.model_dump_json().encode())
    run.storage.create(run.success_uri, b"")


def _publish(run: Run, number: int, rows: pa.Table) -> TablePart:
    for name in IMAGES.names:
        if name not in rows.column_names:
            value = {"status": "ok", "height": 1024, "width": 2048}.get(name)
            column = pa.nulls(len(rows), IMAGES.field(name).type)
            rows = rows.append_column(name, column if value is None else column.fill_null(value))
    buffer = io.BytesIO()
    pq.write_table(rows.select(IMAGES.names), buffer)
    file = f"images/run={run.run_id}/part-{number:05d}.parquet"
    run.storage.create(f"{run.output}/{file}", buffer.getvalue())
    return TablePart(file=file, num_rows=len(rows), sha256="")


def main(num_images: int, kind: str) -> None:
    """Draft and start a run of half of the images, and the next night draft all of them."""
    source = BUCKET if kind == "folder" else f"{BUCKET}/list.parquet"
    network = network_record()
    with tempfile.TemporaryDirectory() as name:
        settings = make_settings(Path(name), source, io_threads=16)
        storage = Many(num_images=num_images // 2)
        with measured(f"draft of {num_images // 2:,}"):
            drafted = draft(History(storage, settings.output), settings, network)
        with measured("cut into shards"):
            print(f"{drafted.num_shards:,} shards")
        with measured("write the plan"):
            run = start_run(storage, settings, network, drafted)
        with measured("what is missing"):
            assert len(run.missing()) == run.record.num_shards
        finish(run)
        storage = Many(num_images=num_images)
        with measured(f"draft of {num_images:,}, half new"):
            drafted = draft(History(storage, settings.output), settings, network)
        assert (drafted.num_skipped, drafted.num_images) == (num_images // 2, num_images // 2)
        with measured("write the plan"):
            start_run(storage, settings, network, drafted)


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000,
        sys.argv[2] if len(sys.argv) > 2 else "folder",
    )
