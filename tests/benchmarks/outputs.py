"""Peak memory and seconds of `runs`, `select` and `export` on outputs of many rows.

    python -m tests.benchmarks outputs [NUM_IMAGES ...] [--nights NIGHTS]

Each output has two finished runs, the second of half of the images; or a run for each night, all of
so many images of its own, whose names lie between those of the other nights. The rows are made; of
masks there are 50 (drawn scenes of 360 x 480), which the rows share. Images are not copied, and
after many nights only those of a selection are exported. What Ray's tasks take is not counted.
"""

import argparse
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.demo.scenes import draw_scene
from pipeline.images.masks import encode_mask, make_palette
from pipeline.labelling.publish import publish
from pipeline.labelling.records import Manifest, TablePart
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import CLASS_STATISTICS, IMAGES
from pipeline.store.storage import sha256_hex
from tests.disk_runs import NUM_CLASSES, draw_images, label_run, start_run

_NUM_MASKS = 50
_SIZE = (360, 480)
_ROWS_PER_FILE = 100_000
# The peak of the process itself: what getrusage says holds that of whoever started it.
_PROGRAM = """
import re, sys, time
from jobs.__main__ import main
assert main(sys.argv[1:]) == 0
print(time.process_time(), re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""
# A task asks for half a CPU.
_WITH_RAY = """
import logging, ray
ray.init(num_cpus=1, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
"""
_IN_TASKS = ["--ray-address", "auto"]
_COMMANDS = {
    "runs": ["runs"],
    "select --class-share": ["select", "--class-share", "class_1", "0.2.."],
    "select --least-confident": ["select", "--least-confident", "1000", "--max-per-folder", "20"],
    "export --format coco": ["export", "--format", "coco", "--no-copy-images"],
    "export, in two tasks": ["export", "--format", "coco", "--no-copy-images", *_IN_TASKS],
}


def _draw_masks(run: Run) -> list[bytes]:
    """Draw scenes, and make masks of them."""
    palette = make_palette([label.color for label in run.record.network.classes])
    scenes = (draw_scene(index, *_SIZE)[1] % NUM_CLASSES for index in range(_NUM_MASKS))
    return [encode_mask(scene, palette, 1) for scene in scenes]


def _rows(
    run: Run, hashes: list[str], numbers: range
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    now = run.record.created_at
    for number in numbers:
        key = f"camera-{number // 1000:05d}/{number:09d}.jpg"
        uri = f"{run.record.input}/{key}"
        identity = sha256_hex(uri.encode())[:32]
        common: dict[str, Any] = {"image_id": identity, "key": key, "run_id": run.run_id}
        image = {**common, "uri": uri, "etag": identity, "num_bytes": 200_000, "status": "ok"}
        image |= {"height": _SIZE[0], "width": _SIZE[1], "fingerprint": "0" * 64, "shard": 0}
        image |= {"mask_uri": f"{run.masks_folder}/{number % _NUM_MASKS}.png", "labelled_at": now}
        image |= {"mask_sha256": hashes[number % _NUM_MASKS], "attempts": 1}
        image |= {"mean_confidence": int(identity[:8], 16) / (1 << 32)}
        share = {"pixel_count": 1, "pixel_fraction": number % 4 / 4, "mean_confidence": 0.5}
        statistics = [
            {**common, "class_id": index, "class_name": f"class_{index}", **share}
            for index in range(NUM_CLASSES)
        ]
        yield image, statistics


def _write_run(
    first: Run, manifest: Manifest, masks: list[bytes], name: str, numbers: range
) -> None:
    """Write a finished run of made rows beside a real one."""
    later = first.record.created_at + timedelta(hours=len(name))
    record = first.record.model_copy(update={"run_id": name, "created_at": later})
    run = Run(first.storage, first.output, record)
    for index, mask in enumerate(masks):
        run.storage.write(f"{run.masks_folder}/{index}.png", mask)
    hashes = [sha256_hex(mask) for mask in masks]
    parts: tuple[list[TablePart], list[TablePart]] = ([], [])
    for start in range(0, len(numbers), _ROWS_PER_FILE):
        images, statistics = [], []
        for image, some in _rows(run, hashes, numbers[start : start + _ROWS_PER_FILE]):
            images.append(image)
            statistics += some
        tables = (("images", IMAGES, images), ("class_statistics", CLASS_STATISTICS, statistics))
        for place, (table, schema, rows) in enumerate(tables):
            buffer = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(rows, schema), buffer, row_group_size=500)
            file = f"{table}/run={name}/part-{start // _ROWS_PER_FILE:05d}.parquet"
            run.storage.write(f"{run.output}/{file}", buffer.getvalue())
            parts[place].append(TablePart(file=file, num_rows=len(rows), sha256="0" * 64))
    made = {"run_id": name, "images": parts[0], "class_statistics": parts[1]}
    manifest = manifest.model_copy(update={**made, "num_images": len(numbers)})
    run.storage.write(f"{run.folder}/run.json", record.model_dump_json().encode())
    run.storage.write(run.manifest_uri, manifest.model_dump_json().encode())
    run.storage.write(run.success_uri, b"")


def _measure(name: str, arguments: list[str], folder: Path) -> None:
    places = {
        "select": ["--to", str(folder / "chosen.parquet")],
        "export": ["--to", str(folder / name)],
    }
    command = [arguments[0], str(folder / "out"), *arguments[1:], *places.get(arguments[0], [])]
    start = time.perf_counter()
    program = (_WITH_RAY if "--ray-address" in command else "") + _PROGRAM
    ended = subprocess.run(
        [sys.executable, "-c", program, *command], check=True, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    cpu, peak = map(float, ended.stdout.splitlines()[-1].split())
    print(f"{name:<26}{seconds:8.1f} s {cpu:8.1f} CPU s {peak / 1024:8.0f} MiB", flush=True)


def _runs_of(number: int, nights: int | None) -> dict[str, range]:
    """Name the runs; gives the numbers of the images of each."""
    if nights is None:
        return {"a": range(number), "bb": range(0, number, 2)}
    return {f"night-{night:05d}": range(night, number * nights, nights) for night in range(nights)}


def main(numbers: list[int], nights: int | None) -> None:
    """Measure each command on an output of each size, in a process of its own."""
    for number in numbers:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            first = start_run(folder, draw_images(folder, 2), run_id="first")
            label_run(first)
            manifest, masks = publish(first, str), _draw_masks(first)
            runs = _runs_of(number, nights)
            for run_id, of_run in runs.items():
                _write_run(first, manifest, masks, run_id, of_run)
            print(f"{len(runs)} runs of {number:,} images, {sum(map(len, runs.values())):,} rows")
            chosen = [] if nights is None else ["--selection", str(folder / "chosen.parquet")]
            for words, arguments in _COMMANDS.items():
                _measure(words, arguments + (chosen if "export" in arguments else []), folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("numbers", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--nights", type=int)
    given = parser.parse_args()
    main(given.numbers, given.nights)
