"""Publishing many images: what a worker needs for a section, and the driver for the rest.

A run with commit records of made-up rows (256 images of 6 classes each by default) is written to a
disk; of masks there is none. Each step runs in a process of its own: a worker that publishes one
section, the rest of them, then the driver at the end of a run: with every section published, as
after a run on a cluster, with one left, and with all of them left, as where there is no cluster.
"""

import argparse
import io
import multiprocessing
import resource
import shutil
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.labelling.cost import Work
from pipeline.labelling.publish import publish
from pipeline.labelling.runs import Run, find_run
from pipeline.labelling.schema import COMMIT, OK
from pipeline.labelling.section_tables import publish_section
from pipeline.labelling.sections import sections_of
from pipeline.store.storage import Storage
from tests.benchmarks.made_up import IMAGES_PER_SHARD, made_up_run
from tests.benchmarks.table import print_header, print_table

_SIZE = (1024, 2048)
_Row = tuple[str, str, str, str]


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    print_header()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        run = made_up_run(arguments.shards, f"file://{temporary}/out", arguments.classes)
        with _process() as pool:
            pool.apply(write_commits, (run, arguments.classes))
        sections = list(sections_of(run.record.plan))
        rows = [_in_process("a worker: one section", run, _publish_sections, (1,))]
        rows.append(_in_process("a worker: the other sections", run, _publish_sections, (None,)))
        rows.append(_in_process("the driver, all published", run, _publish, ()))
        _undo(run, [sections[-1].number])
        rows.append(_in_process("the driver, one section left", run, _publish, ()))
        _undo(run, [section.number for section in sections])
        rows.append(_in_process("the driver, all left", run, _publish, ()))
    images = arguments.shards * IMAGES_PER_SHARD
    print(f"{images:,} images of {arguments.classes} classes, {len(sections)} sections\n")
    print_table(["", "seconds", "CPU seconds", "peak RSS, MiB"], rows)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=3_907)
    parser.add_argument("--classes", type=int, default=6)
    parser.add_argument("--folder", help="where the output is made")
    return parser.parse_args()


def _process() -> "multiprocessing.pool.Pool":
    return multiprocessing.get_context("spawn").Pool(1)


def _in_process(what: str, run: Run, work: "object", given: tuple[object, ...]) -> _Row:
    with _process() as pool:
        return pool.apply(_measured, (what, run.output, run.run_id, work, given))


def _measured(what: str, output: str, run_id: str, work, given) -> _Row:
    run = find_run(Storage(), output, run_id)
    assert run is not None, "it was made up"
    started, cpu = time.perf_counter(), time.process_time()
    work(run, *given)
    seconds, used = time.perf_counter() - started, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (what, f"{seconds:.1f}", f"{used:.1f}", f"{peak:.0f}")


def _publish_sections(run: Run, number: int | None) -> None:
    for section in list(sections_of(run.record.plan))[:number]:
        publish_section(run, section)


def _publish(run: Run) -> None:
    manifest = publish(run, str)
    assert manifest.num_images == run.record.num_images, "all are committed"


def _undo(run: Run, numbers: list[int]) -> None:
    """Take away the end of the publication, and some sections."""
    folder = Path(run.output.removeprefix("file://"))
    for name in ("manifest.json", "_SUCCESS"):
        (folder / "runs" / run.run_id / name).unlink()
    for number in numbers:
        (folder / "runs" / run.run_id / f"sections/{number:05d}.json").unlink()
        for table in ("images", "class_statistics"):
            (folder / table / f"run={run.run_id}" / f"part-{number:05d}.parquet").unlink()


def write_commits(run: Run, num_classes: int, mask_sha256: str = "a" * 64) -> None:
    """Write run.json and the commit record of every shard.

    Every image has all of the classes, in equal bands.
    """
    folder = Path(run.folder.removeprefix("file://"))
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "commits").mkdir(parents=True)
    (folder / "run.json").write_text(run.record.model_dump_json(indent=1))
    for shard in run.shards:
        buffer = io.BytesIO()
        pq.write_table(_record(run, shard, num_classes, mask_sha256), buffer, compression="zstd")
        path = Path(run.commit_uri(shard).removeprefix("file://"))
        path.write_bytes(buffer.getvalue())


def _record(run: Run, shard: int, num_classes: int, mask_sha256: str) -> pa.Table:
    number = IMAGES_PER_SHARD
    dice = np.random.default_rng(shard)
    ids = [dice.bytes(16).hex() for _ in range(number)]
    keys = [f"camera-{shard % 97:03d}/2024/05/{one}.jpg" for one in ids]
    pixels = _SIZE[0] * _SIZE[1] // num_classes
    counts = [_SIZE[0] * _SIZE[1] - pixels * (num_classes - 1), *[pixels] * (num_classes - 1)]
    shares = dice.random((number, num_classes))
    columns = {
        "image_id": ids,
        "key": keys,
        "uri": [f"{run.record.input}/{key}" for key in keys],
        "etag": [dice.bytes(16).hex() for _ in range(number)],
        "num_bytes": dice.integers(10**5, 10**6, number),
        "height": [_SIZE[0]] * number,
        "width": [_SIZE[1]] * number,
        "status": [OK] * number,
        "error_code": [None] * number,
        "error_message": [None] * number,
        "mask_uri": [f"{run.masks_folder}/{key[:-4]}.png" for key in keys],
        "mask_sha256": [mask_sha256] * number,
        "mean_confidence": dice.random(number),
        "shard": [shard] * number,
        "run_id": [run.run_id] * number,
        "fingerprint": [run.record.network.fingerprint] * number,
        "labelled_at": [datetime.now(UTC)] * number,
        "attempts": [1] * number,
        "classes": [
            [
                {"class_id": index, "pixel_count": counts[index], "mean_confidence": share}
                for index, share in enumerate(row)
            ]
            for row in shares.tolist()
        ],
    }
    work = Work(attempt=1, seconds={"network": 1.0}, hosts={"a": (shard, shard + 1.0)})
    table = pa.table(columns, COMMIT)
    return table.replace_schema_metadata({b"write_id": b"made up", **work.metadata()})


if __name__ == "__main__":
    main()
