"""What a Delta log costs after many nights: to add a run, and to open it.

    python -m tests.benchmarks.delta_log [NIGHTS ...]

A log of made-up files, one commit for each night but the last, is written on a disk by delta-rs and
copied to the S3 server of the tests, on the same machine; then the last night is added to it there.
"""

import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.transaction import AddAction

from pipeline.store.delta_table import Change, DeltaLog, TableFile
from pipeline.store.storage import Storage
from tests.servers import CREDENTIALS, moto_server

_SCHEMA = pa.schema([("image_id", pa.string())])


def _add(log: DeltaLog, night: int) -> None:
    file = TableFile(f"run={night:05d}/part-00000.parquet", f"{night:05d}", 1_000_000, 100_000)
    log.change(lambda _: Change([file]))


def _commit_by_itself(folder: Path, nights: int) -> None:
    """Go on as delta-rs does, with its checkpoints."""
    table, columns = DeltaTable(folder), _SCHEMA.append(pa.field("run", pa.string()))
    statistics = json.dumps({"numRecords": 100_000})
    for night in range(2, nights + 1):
        name = f"{night:05d}"
        path = f"run={name}/part-00000.parquet"
        action = AddAction(path, 1_000_000, {"run": name}, 0, data_change=True, stats=statistics)
        written = CommitProperties(app_transactions=[Transaction(f"fcn:{name}", 1)])
        table.create_write_transaction(
            [action], "append", columns, ["run"], commit_properties=written
        )
        table.update_incremental()


def _after(nights: int, storage: Storage, folder: str) -> DeltaLog:
    with tempfile.TemporaryDirectory() as name:
        _add(DeltaLog(Storage(), f"file://{name}", _SCHEMA, "run"), 1)
        _commit_by_itself(Path(name), nights)
        for path in Path(name, "_delta_log").iterdir():
            storage.write(f"{folder}/_delta_log/{path.name}", path.read_bytes())
    return DeltaLog(storage, folder, _SCHEMA, "run")


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
    """Measure some nights."""
    os.environ.update(CREDENTIALS)
    with tempfile.TemporaryDirectory() as name, moto_server(Path(name, "log")) as server:
        storage = Storage(s3_endpoint_url=server.endpoint_url)
        options = {"aws_endpoint": server.endpoint_url, "allow_http": "true"}
        for night in nights:
            folder = f"s3://{server.make_bucket()}/out/images"
            _report(_after(night - 1, storage, folder), night, options)


if __name__ == "__main__":
    main([int(given) for given in sys.argv[1:]] or [2, 30, 199, 1000])
