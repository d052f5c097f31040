"""What a Delta log costs after many nights: to add a run, and to open it.

    python -m tests.benchmarks.delta_log [NIGHTS ...]

A log of made-up files in the S3 server of the tests, one commit for each night; the requests are
counted, the server is on the same machine.
"""

import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable

from pipeline.store.delta_table import Change, DeltaLog, TableFile
from pipeline.store.storage import Storage
from tests.servers import CREDENTIALS, moto_server

_SCHEMA = pa.schema([("image_id", pa.string())])


def _add(log: DeltaLog, night: int) -> None:
    file = TableFile(f"run={night:05d}/part-00000.parquet", f"{night:05d}", 1_000_000, 100_000)
    log.change(lambda _: Change([file]))


def _report(log: DeltaLog, night: int, options: dict[str, str]) -> None:
    counted = replace(log, storage=log.storage.counting())
    clock, cpu = time.perf_counter(), time.process_time()
    _add(counted, night)
    wall, spent = time.perf_counter() - clock, time.process_time() - cpu
    requests = dict(counted.storage.requests)
    clock = time.perf_counter()
    table = DeltaTable(log.folder, storage_options=options)
    opened = time.perf_counter() - clock
    assert table.version() + 1 == night
    print(
        f"night {night}: adding it {wall:.2f} s, {spent:.2f} CPU s, {requests}; "
        f"opened by delta-rs in {opened:.3f} s"
    )


def main(nights: list[int]) -> None:
    """Go through the nights, and measure some of them."""
    os.environ.update(CREDENTIALS)
    with tempfile.TemporaryDirectory() as name, moto_server(Path(name, "log")) as server:
        storage = Storage(s3_endpoint_url=server.endpoint_url)
        folder = f"s3://{server.make_bucket()}/out/images"
        log = DeltaLog(storage, folder, _SCHEMA, "run")
        options = {"aws_endpoint": server.endpoint_url, "allow_http": "true"}
        for night in range(1, max(nights) + 1):
            if night in nights:
                _report(log, night, options)
            else:
                _add(log, night)


if __name__ == "__main__":
    main([int(given) for given in sys.argv[1:]] or [1, 30, 199, 1000])
