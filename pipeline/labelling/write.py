"""Write: mask files to their place, then the commit record that makes them count.

In: a ShardRow with `png`. Out: a receipt of what stands in the commit record.

Every object is put-if-absent (put_masks.py). An attempt that finds another one's mask counts that
one's pixels, so that statistics and masks agree also where two attempts of a nondeterministic
device do not.
"""

import io
import uuid
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import ErrorCode
from pipeline.images.masks import decode_mask
from pipeline.labelling.class_statistics import count_classes
from pipeline.labelling.cost import Work
from pipeline.labelling.mishaps import Mishaps, stop_if_everywhere
from pipeline.labelling.put_masks import Put, put_files, put_tar
from pipeline.labelling.runs import Run, damaged
from pipeline.labelling.schema import (
    COMMIT,
    ERROR,
    OK,
    PLAN,
    ClassPixels,
    ImageRow,
    Receipt,
    ShardRow,
)
from pipeline.store.storage import Storage, sha256_hex

_OF_THE_RUN = ("shard", "run_id", "fingerprint", "labelled_at")


class Write:
    """Writes the masks of one shard and commits it."""

    def __init__(self, run: Run, threads: int) -> None:
        """Take the run along to the worker.

        Args:
            run: Whose shards come.
            threads: Masks written at a time.
        """
        self._run = run
        self._threads = threads
        self._mishaps = Mishaps()

    def __call__(self, shard: ShardRow) -> Receipt:
        """Write one shard.

        Raises:
            StoreError: The store did not take it; the shard is not committed.
            InputError: A mask or a record that stands there is damaged.
        """
        work, storage = Work(**shard.get("work", {})), self._run.storage.counting()
        work.attempt = self._run.attempt
        with work.timed("write"):
            put = self._put_masks(storage, shard)
            rows = [_row(image, put.get(image["mask_key"])) for image in shard["images"]]
        work.written_bytes = sum(len(image.get("png") or b"") for image in shard["images"])
        work.retried(storage.retries)
        now = datetime.now(UTC)
        common = {
            "shard": shard["shard"],
            "run_id": self._run.run_id,
            "fingerprint": self._run.record.network.fingerprint,
            "labelled_at": now,
        }
        table = self._table(shard["shard"], [{**row, **common} for row in rows])
        return _receipt(shard["shard"], self._commit(shard["shard"], table, work))

    def _table(self, shard: int, rows: list[dict[str, Any]]) -> pa.Table:
        """Build the rows; one that Arrow can't hold says so, and the others stand."""
        with suppress(Exception):  # which row it was is found out below
            return pa.Table.from_pylist(rows, COMMIT)
        held = [self._held(row) for row in rows]
        stop_if_everywhere(shard, held)
        return pa.Table.from_pylist(held, COMMIT)

    def _held(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            pa.Table.from_pylist([row], COMMIT)
        except Exception as error:  # noqa: BLE001 - whatever it is, it costs this image a row
            known = self._mishaps.image_error(error, row["uri"])
            return _failed(row, known.code, known.message)
        return row

    def _put_masks(self, storage: Storage, shard: ShardRow) -> dict[str, Put]:
        folder = self._run.masks_folder
        masks = {
            image["mask_key"]: png
            for image in shard["images"]
            if (png := image.get("png")) is not None
        }
        if self._run.masks_in_tars:
            return put_tar(storage, folder, shard["shard"], masks)
        return put_files(storage, folder, self._threads, masks)

    def _commit(self, shard: int, table: pa.Table, work: Work) -> pa.Table:
        # The write-id makes the bytes this attempt's own: see Storage.create on lost answers.
        write_id = {b"write_id": uuid.uuid4().hex.encode()}
        marked = table.replace_schema_metadata({**write_id, **work.metadata()})
        buffer = io.BytesIO()
        pq.write_table(marked, buffer, compression="zstd")
        uri = self._run.commit_uri(shard)
        if self._run.storage.create(uri, buffer.getvalue()):
            return marked
        return self._run.commit(shard)


def _row(image: ImageRow, put: Put | None) -> dict[str, Any]:
    # A plan of an earlier version does not number attempts.
    row: dict[str, Any] = {"attempts": 1, **image}
    png = image.get("png")
    if png is None:
        return {**row, "status": ERROR}
    assert put is not None, "each mask was put"
    if put.refusal is not None:
        return _failed(row, put.refusal.code, put.refusal.message)
    if put.png != png:
        row["classes"] = _recount(put, image["classes"])
    return row | {
        "status": OK,
        "mask_uri": put.place.uri,
        "mask_offset": put.place.offset,
        "mask_bytes": put.place.num_bytes,
        "mask_sha256": sha256_hex(put.png),
    }


def _failed(row: dict[str, Any], code: ErrorCode, message: str) -> dict[str, Any]:
    """Keep of a row what was planned, and say why it has no mask."""
    kept = {name: row.get(name) for name in (*PLAN.names, *_OF_THE_RUN)}
    return {**kept, "status": ERROR, "error_code": str(code), "error_message": message}


def _recount(put: Put, own: list[ClassPixels]) -> list[ClassPixels]:
    try:
        mask = decode_mask(put.png)
    except ValueError as error:
        raise damaged(str(put.place), error) from error
    confidence = {entry["class_id"]: entry["mean_confidence"] for entry in own}
    return [
        ClassPixels(class_id=index, pixel_count=count, mean_confidence=confidence.get(index))
        for index, count in count_classes(mask).items()
    ]


def _receipt(shard: int, table: pa.Table) -> Receipt:
    failed = pc.sum(pc.equal(table["status"], ERROR)).as_py() or 0
    errors = Counter(code for code in table["error_code"].to_pylist() if code)
    work = Work.of_metadata(table.schema.metadata).model_dump()
    return Receipt(
        shard=shard, num_images=table.num_rows, num_failed=failed, errors=dict(errors), work=work
    )
