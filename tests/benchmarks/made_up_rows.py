"""Rows of made-up runs: commit records, plan and masks of images that never were."""

import io
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.images.masks import encode_mask, make_palette
from pipeline.labelling.cost import Work
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import COMMIT, OK, PLAN
from pipeline.store.storage import sha256_hex
from tests.benchmarks.made_up import IMAGES_PER_SHARD

# A file may have 65,000 names on ext4.
_NAMES_PER_FILE = 50_000
_PLANNED = ["shard", "image_id", "key", "uri", "etag"]


def write_commits(run: Run, size: tuple[int, int], num_classes: int, mask: bytes = b"") -> None:
    """Write run.json and the commit record of every shard.

    Every image has all of the classes, as `bands` has.
    """
    folder = _path(run.folder)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "commits").mkdir(parents=True)
    (folder / "run.json").write_text(run.record.model_dump_json(indent=1))
    counts = np.bincount(bands(size, num_classes).ravel()).tolist()
    for shard in run.shards:
        buffer = io.BytesIO()
        rows = _record(run, shard, size, counts, sha256_hex(mask))
        pq.write_table(rows, buffer, compression="zstd")
        _path(run.commit_uri(shard)).write_bytes(buffer.getvalue())


def write_plan(run: Run) -> None:
    """Write the files of the plan that belong to the commit records."""
    (_path(run.folder) / "plan").mkdir()
    for part in run.record.plan:
        with pq.ParquetWriter(_path(run.folder) / "plan" / part.file, PLAN) as writer:
            for commits in run.narrowed([part]).commits(
                ["shard", "image_id", "key", "uri", "etag"]
            ):
                rows = commits.to_pylist()
                for row in rows:
                    row["mask_key"] = f"{row['key'][:-4]}.png"
                writer.write_table(pa.Table.from_pylist(rows, PLAN))


def write_masks(run: Run, mask: bytes) -> None:
    """Write a mask for every image: names of few files, so that little disk is needed."""
    for number, name in enumerate(_mask_keys(run)):
        path = _path(f"{run.masks_folder}/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % _NAMES_PER_FILE == 0:
            first = path
            path.write_bytes(mask)
        else:
            os.link(first, path)


def _mask_keys(run: Run) -> Iterator[str]:
    for table in run.plan():
        yield from table["mask_key"].to_pylist()


def bands(size: tuple[int, int], num_classes: int) -> np.ndarray:
    """Return class indices of shape (height, width), in bands of equal height."""
    rows = np.arange(size[0]) * num_classes // size[0]
    return np.repeat(rows[:, None], size[1], axis=1).astype(np.uint8)


def mask_of(run: Run, size: tuple[int, int]) -> bytes:
    """Encode `bands` of the run's classes."""
    classes = run.record.network.classes
    palette = make_palette([label.color for label in classes])
    return encode_mask(bands(size, len(classes)), palette, 1)


def _path(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def _record(
    run: Run, shard: int, size: tuple[int, int], counts: list[int], sha256: str
) -> pa.Table:
    number = IMAGES_PER_SHARD
    dice = np.random.default_rng(shard)
    ids = [dice.bytes(16).hex() for _ in range(number)]
    keys = [f"camera-{shard % 97:03d}/2024/05/{one}.jpg" for one in ids]
    shares = dice.random((number, len(counts)))
    columns = {
        "image_id": ids,
        "key": keys,
        "uri": [f"{run.record.input}/{key}" for key in keys],
        "etag": [dice.bytes(16).hex() for _ in range(number)],
        "num_bytes": dice.integers(10**5, 10**6, number),
        "height": [size[0]] * number,
        "width": [size[1]] * number,
        "status": [OK] * number,
        "mask_uri": [f"{run.masks_folder}/{key[:-4]}.png" for key in keys],
        "mask_sha256": [sha256] * number,
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
    unset = {name: [None] * number for name in COMMIT.names if name not in columns}
    table = pa.table({**unset, **columns}, COMMIT)
    return table.replace_schema_metadata({b"write_id": b"made up", **work.metadata()})
