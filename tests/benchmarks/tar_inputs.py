"""Images in tars: what it costs to find them, and to fetch them, in requests, time and memory.

Tars lie in a bucket of a server on this machine, as img2dataset writes them: an image, its JSON and
its caption for each sample. What is asked for is counted by the storage.
"""

import argparse
import os
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import Process
from pathlib import Path

from pipeline.inputs.kept_tars import KeptTars
from pipeline.inputs.listing import Reading, Sources
from pipeline.inputs.source import Source
from pipeline.labelling.fetch import Fetch
from pipeline.labelling.schema import ImageRow
from pipeline.store.storage import Storage
from tests.benchmarks.table import print_header, print_table
from tests.servers import CREDENTIALS, Server, moto_server
from tests.tar_writer import tar_of

_SHARD = 256
_THREADS = 16
_MIB = 1 << 20


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    os.environ.update(CREDENTIALS)
    print_header()
    with tempfile.TemporaryDirectory() as folder, moto_server(Path(folder) / "log") as server:
        bucket = server.make_bucket()
        # Elsewhere: its memory is none of ours.
        drawing = Process(target=_draw, args=(server, bucket, arguments))
        drawing.start()
        drawing.join()
        assert drawing.exitcode == 0
        storage = Storage(server.endpoint_url)
        kept = KeptTars(storage, f"s3://{bucket}/out/tars", folder)
        found, finding = _find(storage, f"s3://{bucket}/in", kept)
        kept.write()
        _, again = _find(storage, f"s3://{bucket}/in", kept)
        fetching = _fetch(storage, found[: arguments.fetched])
    number = f"{len(found):,} images in {arguments.tars} tars"
    print_table(
        ("", "requests", "seconds", "CPU us per image", "MiB"),
        [
            (f"find {number}", *finding),
            ("find them again", *again),
            (f"fetch {arguments.fetched:,} of them", *fetching),
        ],
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tars", type=int, default=10)
    parser.add_argument("--images", type=int, default=10_000, help="of a tar")
    parser.add_argument("--bytes", type=int, default=10_000, help="of an image")
    parser.add_argument("--fetched", type=int, default=10_240, help="images that are fetched")
    return parser.parse_args()


def _draw(server: Server, bucket: str, arguments: argparse.Namespace) -> None:
    image = random.Random(0).randbytes(arguments.bytes)
    for tar in range(arguments.tars):
        names = [f"{tar * arguments.images + index:09d}" for index in range(arguments.images)]
        members = (
            member
            for name in names
            for member in ((f"{name}.jpg", image), (f"{name}.json", b"{}"), (f"{name}.txt", b"-"))
        )
        server.put(bucket, f"in/{tar:05d}.tar", tar_of(members))


def _find(storage: Storage, place: str, kept: KeptTars) -> tuple[list[Source], tuple[str, ...]]:
    before = storage.requests["read"]
    reading = Reading(form="tar", kept=kept)
    sources = Sources(storage, place, "file:///none", _THREADS, reading)
    started, used = time.perf_counter(), time.process_time()
    found = list(sources)
    requests = sources.num_header_reads + storage.requests["read"] - before
    cells = _cells(requests, started, used, len(found))
    return sorted(found, key=lambda source: source.key), cells


def _fetch(storage: Storage, sources: list[Source]) -> tuple[str, ...]:
    counting = storage.counting()
    fetch = Fetch(counting, 64 * _MIB, _THREADS)
    started, used = time.perf_counter(), time.process_time()
    for shard in _shards(sources):
        assert all(image["data"] for image in fetch.images(shard))
    return _cells(counting.requests["read"], started, used, len(sources))


def _shards(sources: list[Source]) -> Iterator[list[ImageRow]]:
    for first in range(0, len(sources), _SHARD):
        yield [
            ImageRow(
                image_id=source.key, key=source.key, uri=source.uri, etag=source.version,
                num_bytes=source.num_bytes, mask_key="", image_offset=source.offset,
            )
            for source in sources[first : first + _SHARD]
        ]  # fmt: skip


def _cells(requests: int, started: float, used: float, number: int) -> tuple[str, ...]:
    """Return requests, seconds, CPU time per image and the process's peak so far."""
    cpu_us = (time.process_time() - used) / number * 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"{requests:,}", f"{time.perf_counter() - started:.1f}", f"{cpu_us:.0f}", f"{peak:.0f}"


if __name__ == "__main__":
    main()
