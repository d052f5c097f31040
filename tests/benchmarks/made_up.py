"""Runs that were made up: of any size, with no image; on a disk, or in a bucket that only lists."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pipeline.labelling.records import ClassRecord, NetworkRecord, RunRecord
from pipeline.labelling.runs import Run, commit_name
from pipeline.labelling.shards import PlanPart
from pipeline.store.storage import Storage

_PER_FILE = 64
IMAGES_PER_SHARD = 256
_KEYS_PER_PAGE = 1000
_RUN_ID = "20261127T000000Z-012345"
_XML = (
    '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<Name>bucket</Name>"
)


def made_up_run(num_shards: int, output: str, num_classes: int = 0) -> Run:
    """Make up a run with plan files of 64 shards, of which nothing is stored."""
    plan = [
        PlanPart(
            file=f"part-{first // _PER_FILE:05d}-0123456789ab.parquet",
            first_shard=first,
            num_images=[IMAGES_PER_SHARD] * min(_PER_FILE, num_shards - first),
        )
        for first in range(0, num_shards, _PER_FILE)
    ]
    network = NetworkRecord(
        fingerprint="f" * 64,
        weights="random:0",
        untrained=True,
        deciding={},
        classes=[
            ClassRecord(id=index, name=f"class_{index}", color=(index, 0, 0))
            for index in range(num_classes)
        ],
    )
    record = RunRecord(
        run_id=_RUN_ID,
        identity="i",
        created_at=datetime.now(UTC),
        input="file:///in",
        output=output,
        network=network,
        settings={},
        versions={},
        num_images=num_shards * IMAGES_PER_SHARD,
        num_bytes=0,
        num_shards=num_shards,
        num_skipped=0,
        num_skipped_failed=0,
        plan=plan,
    )
    return Run(Storage(), output, record)


def on_disk(num_shards: int, folder: Path) -> str:
    """Store run.json and an empty commit record for every second shard; return the output."""
    run = made_up_run(num_shards, f"file://{folder}")
    commits = folder / "runs" / _RUN_ID / "commits"
    commits.mkdir(parents=True)
    (commits.parent / "run.json").write_text(run.record.model_dump_json(indent=1))
    for shard in range(0, num_shards, 2):
        (commits / commit_name(shard)).touch()
    return run.output


@contextmanager
def in_bucket(num_shards: int) -> Iterator[tuple[str, str]]:
    """Serve the same from a process of its own, as S3 does; return output and endpoint."""
    context = multiprocessing.get_context("spawn")
    ready, tell = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(num_shards, tell), daemon=True)
    process.start()
    try:
        yield "s3://bucket/out", f"http://127.0.0.1:{ready.recv()}"
    finally:
        process.terminate()


def _serve(num_shards: int, tell: Any) -> None:
    folder = f"out/runs/{_RUN_ID}"
    record = made_up_run(num_shards, "s3://bucket/out").record.model_dump_json(indent=1).encode()
    pages = _pages([f"{folder}/commits/{commit_name(shard)}" for shard in range(0, num_shards, 2)])
    runs = f"{_XML}<CommonPrefixes><Prefix>{folder}/</Prefix></CommonPrefixes></ListBucketResult>"

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            if "list-type" not in query:
                self._say(200, record) if url.path.endswith("/run.json") else self._say(404, b"")
            elif query["prefix"].endswith("/commits/"):
                self._say(200, pages[int(query.get("continuation-token", 0))])
            else:
                self._say(200, runs.encode())

        def do_HEAD(self) -> None:
            self._say(404, b"")

        def _say(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"0123456789abcdef0123456789abcdef"')
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    tell.send(server.server_port)
    server.serve_forever()


def _pages(keys: list[str]) -> list[bytes]:
    """Write a listing as S3 does, in pages of a thousand keys."""
    starts = range(0, len(keys), _KEYS_PER_PAGE)
    pages = []
    for number, start in enumerate(starts):
        entries = "".join(_entry(key) for key in keys[start : start + _KEYS_PER_PAGE])
        more = number + 1 < len(starts)
        token = f"<NextContinuationToken>{number + 1}</NextContinuationToken>" if more else ""
        cut = f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}"
        pages.append(f"{_XML}{cut}{entries}</ListBucketResult>".encode())
    return pages


def _entry(key: str) -> str:
    return (
        f"<Contents><Key>{key}</Key><LastModified>2026-11-27T00:00:00.000Z</LastModified>"
        "<ETag>&quot;0123456789abcdef0123456789abcdef&quot;</ETag><Size>57545</Size>"
        "<StorageClass>STANDARD</StorageClass></Contents>"
    )
