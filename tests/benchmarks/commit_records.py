"""Size of commit records, and CPU time of writing and reading one, by codec and images per shard.

The rows are made up, as ones of photographs in a bucket with 1 to 12 of 21 classes each.
"""

import argparse
import hashlib
import io
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.labelling.schema import COMMIT
from pipeline.store.parquet import read_parquet
from tests.benchmarks.table import print_header, print_table

_PIXELS = 1024 * 2048
_NUM_RECORDS = 8
_RUN = "20261127T000000Z-012345"


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    print_header()
    rows = []
    for number in arguments.images:
        records = [_record(random.Random(shard), number, shard) for shard in range(_NUM_RECORDS)]
        for codec in arguments.codecs:
            written, write_s = _best(lambda: [_write(one, codec) for one in records])  # noqa: B023
            _, read_s = _best(lambda: [read_parquet(one) for one in written])  # noqa: B023
            size = sum(map(len, written)) / _NUM_RECORDS
            times = (f"{1e3 * one / _NUM_RECORDS:.2f}" for one in (write_s, read_s))
            rows.append((f"{number}, {codec}", f"{size:.0f}", f"{size / number:.0f}", *times))
    print_table(["images, codec", "bytes", "per image", "write, CPU ms", "read, CPU ms"], rows)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[4, 32, 256], help="per shard")
    parser.add_argument("--codecs", nargs="+", default=["snappy", "zstd"])
    return parser.parse_args()


def _best(work: Callable[[], list[Any]]) -> tuple[list[Any], float]:
    """Do something ten times; return its result and the CPU seconds of the fastest."""
    times = []
    for _ in range(10):
        start = time.process_time()
        found = work()
        times.append(time.process_time() - start)
    return found, min(times)


def _write(table: pa.Table, codec: str) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression=codec)
    return buffer.getvalue()


def _record(dice: random.Random, number: int, shard: int) -> pa.Table:
    rows = [_row(dice, shard, shard * number + index) for index in range(number)]
    return pa.Table.from_pylist(rows, COMMIT)


def _row(dice: random.Random, shard: int, index: int) -> dict[str, Any]:
    key = f"camera-{index % 97:03d}/2024/05/{index:032x}.jpg"
    sha256 = hashlib.sha256(key.encode()).hexdigest()
    found = sorted(dice.sample(range(21), dice.randint(1, 12)))
    cuts = sorted(dice.sample(range(1, _PIXELS), len(found) - 1))
    counts = [end - start for start, end in pairwise([0, *cuts, _PIXELS])]
    return {
        "image_id": sha256[:32],
        "key": key,
        "uri": f"s3://a-bucket-of-photographs/{key}",
        "etag": hashlib.md5(key.encode()).hexdigest(),
        "num_bytes": dice.randint(10**5, 10**6),
        "height": 1024,
        "width": 2048,
        "status": "ok",
        "mask_uri": f"s3://an-output/masks/run={_RUN}/{key[:-4]}.png",
        "mask_sha256": hashlib.sha256(sha256.encode()).hexdigest(),
        "mean_confidence": dice.random(),
        "shard": shard,
        "run_id": _RUN,
        "fingerprint": hashlib.sha256(b"network").hexdigest(),
        "labelled_at": datetime.now(UTC),
        "attempts": 1,
        "classes": [
            {"class_id": index, "pixel_count": count, "mean_confidence": dice.random()}
            for index, count in zip(found, counts, strict=True)
        ],
    }


if __name__ == "__main__":
    main()
