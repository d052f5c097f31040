"""Plan: what is to be done, cut into shards and written once.

In: the settings, the input's listing, earlier runs. Out: a run with its plan.

Runs on the driver and without Ray or torch. The plan is a table of columns from the start, so
that a million images fit in well under 2 GiB.
"""

import io
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import ErrorCode, FingerprintMismatch, InputError, SettingError
from pipeline.inputs.listing import Source, Sources
from pipeline.labelling.answers import answers
from pipeline.labelling.history import History
from pipeline.labelling.runs import (
    NetworkRecord,
    Run,
    RunRecord,
    find_run,
    masks_folder,
    run_folder,
)
from pipeline.labelling.schema import PLAN
from pipeline.labelling.shards import PlanPart
from pipeline.settings.label import LabelSettings
from pipeline.store.entry import WITHOUT_ETAG
from pipeline.store.names import NamedPlace
from pipeline.store.storage import Storage, sha256_hex
from pipeline.versions import versions

_SHARDS_PER_FILE = 64
_ROWS_PER_CHUNK = 2_000

_LISTED = pa.schema([PLAN.field(name) for name in PLAN.names if name != "shard"])


@dataclass(frozen=True)
class Draft:
    """A run that could be started.

    Attributes:
        images: What is to be done, in order of the key; columns of `schema.PLAN`.
        num_skipped: Listed images that earlier runs have answered for.
        num_skipped_failed: Of these, failed ones.
        num_ignored: Files in the input that are no images by their name.
        num_retried: Of `images`, those that earlier runs have failed at.
        num_repeated: Further times that an image was listed; it is planned once.
        num_without_etag: Of `images`, those whose version is their time and size.
    """

    images: pa.Table
    num_skipped: int
    num_skipped_failed: int
    num_ignored: int
    num_retried: int = 0
    num_repeated: int = 0
    num_without_etag: int = 0

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return 0 if self.images.num_rows == 0 else int(self.images["shard"][-1].as_py()) + 1


def identity(settings: LabelSettings, fingerprint: str) -> str:
    """Hash what makes two commands the same work: input, naming of masks, fingerprint.

    Args:
        settings: Of the command.
        fingerprint: Of the network.
    """
    # A slash at the end says how the input is read, not which it is.
    source = settings.input.rstrip("/")
    return sha256_hex(f"{fingerprint}\0{source}\0{settings.mask_name}".encode())[:16]


def run_to_continue(
    history: History, settings: LabelSettings, network: NetworkRecord
) -> Run | None:
    """Find the run that the command resumes.

    Args:
        history: Of the output.
        settings: Of the command.
        network: That it labels with.

    Returns:
        The run named by `run_id`, finished or not; without a name the newest unfinished run of
        the same input and network; None if a new one is to be started.

    Raises:
        FingerprintMismatch: The named run was started with something else.
        SettingError: The named run has another input, or is finished and asked to retry.
    """
    if settings.run_id is None:
        wanted = identity(settings, network.fingerprint)
        same = [run for run in history.runs() if run.record.identity == wanted]
        pairs = zip(same, history.finished(same), strict=True)
        return next((run for run, done in reversed(list(pairs)) if not done), None)
    run = history.find(settings.run_id)
    if run is not None:
        _check_same_work(run, settings, network)
    return run


def _check_same_work(run: Run, settings: LabelSettings, network: NetworkRecord) -> None:
    if run.record.network.fingerprint != network.fingerprint:
        raise FingerprintMismatch(_what_differs(run.record, network))
    if run.record.identity != identity(settings, network.fingerprint):
        raise SettingError(
            f"run_id={run.run_id!r} was started with input={run.record.input!r} and "
            f"mask_name={run.record.settings.get('mask_name')!r}; give another run_id"
        )
    if settings.retry_failed == "all" and run.finished():
        raise SettingError(
            f"run_id={run.run_id!r} is finished and a finished run never changes: "
            "retry_failed=all needs another run_id, or none"
        )


def draft(history: History, settings: LabelSettings, network: NetworkRecord) -> Draft:
    """List the input and leave out what earlier runs have answered for.

    Args:
        history: Of the output.
        settings: Of the command.
        network: That it labels with.

    Raises:
        InputError: There are no images, or two would get one mask name.
    """
    storage = history.storage.for_input()
    sources = Sources(storage, settings.input, settings.output, settings.io_threads)
    listed = _to_table(sources, settings.mask_name)
    if listed.num_rows == 0:
        raise InputError(
            f"input={settings.input!r} holds no images ({sources.num_ignored} other files). Is the "
            "path right? A folder's images are told by their endings; a manifest names any object"
        )
    num_listed = listed.num_rows
    listed = _refuse_long_names(_once_each(listed), settings)
    _check_names(listed, local=settings.output.startswith("file://"))
    earlier = answers(history, network.fingerprint, settings)
    skip = pc.is_in(listed["image_id"], earlier.done)
    images = earlier.count_attempts(listed.filter(pc.invert(skip)).sort_by("key"))
    skipped = listed.filter(skip)["image_id"]
    return Draft(
        images=_cut(images, settings.max_shard_images, settings.max_shard_bytes),
        num_skipped=len(skipped),
        num_skipped_failed=pc.sum(pc.is_in(skipped, earlier.failed)).as_py() or 0,
        num_ignored=sources.num_ignored,
        num_retried=pc.sum(pc.greater(images["attempts"], 1)).as_py() or 0,
        num_repeated=num_listed - listed.num_rows,
        num_without_etag=pc.sum(pc.starts_with(images["etag"], WITHOUT_ETAG)).as_py() or 0,
    )


def start_run(
    storage: Storage, settings: LabelSettings, network: NetworkRecord, drafted: Draft
) -> Run:
    """Write the plan, then the run's record: from then on the run can be continued.

    Raises:
        StoreError: The output can't be written.
    """
    now = datetime.now(UTC)
    run_id = settings.run_id or _new_run_id(now)
    record = RunRecord(
        run_id=run_id,
        identity=identity(settings, network.fingerprint),
        created_at=now,
        input=settings.input,
        output=settings.output,
        network=network,
        settings=settings.model_dump(),
        versions=versions(),
        num_images=drafted.images.num_rows,
        num_bytes=pc.sum(drafted.images["num_bytes"]).as_py() or 0,
        num_shards=drafted.num_shards,
        num_skipped=drafted.num_skipped,
        num_skipped_failed=drafted.num_skipped_failed,
        plan=list(_write_plan(storage, f"{run_folder(settings.output, run_id)}/plan", drafted)),
    )
    uri = f"{run_folder(settings.output, run_id)}/run.json"
    storage.create(uri, record.model_dump_json(indent=1).encode())
    run = find_run(storage, settings.output, run_id)
    assert run is not None, f"{uri} was written and is not there"
    # Another driver may have been first to take the name.
    _check_same_work(run, settings, network)
    return run


def _new_run_id(now: datetime | None = None) -> str:
    """Name a run; all such names have one length."""
    return f"{now or datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"


def _to_table(sources: Iterable[Source], mask_name: str) -> pa.Table:
    chunks: list[pa.Table] = []
    rows: list[dict[str, Any]] = []
    for source in sources:
        rows.append(
            {
                "image_id": image_id(source.uri, source.version),
                "key": source.key,
                "uri": source.uri,
                "etag": source.version,
                "num_bytes": source.num_bytes,
                "mask_key": mask_key(source.key, mask_name),
                "attempts": 1,
                "error_code": source.refusal and str(source.refusal),
            }
        )
        if len(rows) == _ROWS_PER_CHUNK:
            chunks.append(pa.Table.from_pylist(rows, _LISTED))
            rows = []
    chunks.append(pa.Table.from_pylist(rows, _LISTED))
    return pa.concat_tables(chunks)


def image_id(uri: str, version: str | None) -> str:
    """Hash an image's URI and version: another id is another picture.

    Args:
        uri: Where the image is.
        version: ETag, or mtime and size; None if it could not be looked up.

    Returns:
        32 hexadecimal digits.
    """
    return sha256_hex(f"{uri}\0{version or ''}".encode())[:32]


def mask_key(key: str, mask_name: str) -> str:
    """Name the mask of an image, below the run's folder of masks.

    Args:
        key: The image's name under the input. Parts that a disk would read as a way out of the
            folder (`..`, `.`) or could not hold (NUL) are percent-encoded.
        mask_name: `replace` replaces the ending, `full` keeps it.
    """
    stem = key if mask_name == "full" else os.path.splitext(key)[0]
    parts = [_safe_part(part) for part in f"{stem}.png".split("/")]
    return "/".join(parts)


def _safe_part(part: str) -> str:
    if part in ("", ".", ".."):
        return "%2E" * len(part) or "%"
    return part.replace("\0", "%00")


def _once_each(listed: pa.Table) -> pa.Table:
    """Keep the first row of every object: manifests repeat, and so do pages of some stores."""
    if pc.count_distinct(listed["uri"]).as_py() == listed.num_rows:
        return listed
    places: dict[str, int] = {}
    for place, uri in enumerate(listed["uri"].to_pylist()):
        places.setdefault(uri, place)
    return listed.take(pa.array(places.values(), pa.int64()))


def _refuse_long_names(listed: pa.Table, settings: LabelSettings) -> pa.Table:
    """Mark the images whose masks the output can't hold by name: their rows will say so."""
    run_id = settings.run_id or _new_run_id()
    place = NamedPlace(masks_folder(settings.output, run_id))
    too_long = [not place.holds(name) for name in listed["mask_key"].to_pylist()]
    if not any(too_long):
        return listed
    codes = pc.if_else(pa.array(too_long), str(ErrorCode.NAME_TOO_LONG), listed["error_code"])
    return listed.set_column(listed.column_names.index("error_code"), "error_code", codes)


def _check_names(listed: pa.Table, *, local: bool) -> None:
    listed = listed.filter(pc.is_null(listed["error_code"]))
    counts = listed.group_by("mask_key").aggregate([("key", "count")])
    twice = counts.filter(pc.greater(counts["key_count"], 1))["mask_key"]
    if len(twice):
        name = min(twice.to_pylist())
        keys = listed.filter(pc.equal(listed["mask_key"], name))["key"].to_pylist()
        raise InputError(
            f"{len(twice)} mask names would be used twice; the first is {name!r}, "
            f"for {' and '.join(repr(key) for key in sorted(keys)[:3])}. "
            "Use mask_name=full, or remove one of them from the input"
        )
    if local:
        _check_folders(set(listed["mask_key"].to_pylist()))


def _check_folders(names: set[str]) -> None:
    """Refuse what a bucket can hold and a disk can't."""
    for name in names:
        parts = name.split("/")
        for depth in range(1, len(parts)):
            if (folder := "/".join(parts[:depth])) in names:
                raise InputError(
                    f"the mask names {folder!r} and {name!r} collide on a disk, as a file and a "
                    "folder; use mask_name=full, or write the output to a bucket"
                )


def _cut(images: pa.Table, max_images: int, max_bytes: int) -> pa.Table:
    """Number the shards: the same images give the same shards, whoever runs them."""
    shards: list[int] = []
    shard = num_images = num_bytes = 0
    for size in images["num_bytes"].to_pylist():
        if num_images and (num_images == max_images or num_bytes + (size or 0) > max_bytes):
            shard += 1
            num_images = num_bytes = 0
        shards.append(shard)
        num_images += 1
        num_bytes += size or 0
    column = pa.chunked_array([pa.array(shards, pa.int32())])
    return images.add_column(0, PLAN.field("shard"), column)


def _write_plan(storage: Storage, folder: str, drafted: Draft) -> Iterator[PlanPart]:
    # The content is part of the name: of two drivers, whoever writes run.json wins its whole plan.
    start = 0
    for first in range(0, drafted.num_shards, _SHARDS_PER_FILE):
        shards = range(first, min(first + _SHARDS_PER_FILE, drafted.num_shards))
        data, num_images = _plan_file(drafted.images, shards, start)
        name = f"part-{first // _SHARDS_PER_FILE:05d}-{sha256_hex(data)[:12]}.parquet"
        storage.create(f"{folder}/{name}", data)
        yield PlanPart(file=name, first_shard=first, num_images=num_images)
        start += sum(num_images)


def _plan_file(images: pa.Table, shards: range, start: int) -> tuple[bytes, list[int]]:
    """Write some shards, of which the first begins at row `start`; count their images."""
    buffer = io.BytesIO()
    num_images: list[int] = []
    with pq.ParquetWriter(buffer, PLAN) as writer:
        for shard in shards:
            # Shards are short and lie in order: what is looked through is the shard alone.
            after = pc.index(images["shard"], pa.scalar(shard + 1, pa.int32()), start=start).as_py()
            end = images.num_rows if after < 0 else after
            writer.write_table(images.slice(start, end - start).cast(PLAN))
            num_images.append(end - start)
            start = end
    return buffer.getvalue(), num_images


def _what_differs(record: RunRecord, network: NetworkRecord) -> str:
    differing = [
        f"{name}: {record.network.deciding.get(name)!r} then, {value!r} now"
        for name, value in network.deciding.items()
        if record.network.deciding.get(name) != value
    ]
    return (
        f"run_id={record.run_id!r} was started with another fingerprint "
        f"({'; '.join(differing)[:1500]}). Use the same again to continue it, or another run_id"
    )
