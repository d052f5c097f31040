"""A run: one plan and its commits; where its objects lie, and how they are read.

<output>/runs/<run_id>/run.json appears after the plan's files and names them, so that a run with
a run.json has a whole plan. _SUCCESS appears last of all.
"""

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import pyarrow as pa
from pydantic import ValidationError

from pipeline.errors import ErrorCode, InputError, StoreError
from pipeline.labelling.records import Manifest, Record, RunRecord
from pipeline.labelling.schema import COMMIT, IMAGES, ImageRow, ShardTask, of_any_version
from pipeline.labelling.shards import PlanPart, Shards
from pipeline.store.in_flight import answers_of
from pipeline.store.parquet import DAMAGE, read_parquet
from pipeline.store.storage import Storage

_log = logging.getLogger(__name__)

_READ_THREADS = 16
# Commit records are small, and what reads them waits for the store.
_COMMITS_IN_FLIGHT = 64
TABLES = ("images", "class_statistics")
_AFTER_THE_RECORD = {"commits", "marks", "sections", "manifest.json", "_SUCCESS", "report.html"}
_REPAIR = (
    "restore it, or let `fcn verify OUTPUT --repair --run-id RUN` say what has to go, so that "
    "label does its images again"
)


_Object = TypeVar("_Object", bound=Record)


@dataclass(frozen=True)
class Run:
    """A run in its output; `attempt` is the number of the lock of the command at work, or 0."""

    storage: Storage
    output: str
    record: RunRecord
    attempt: int = 0

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return self.record.run_id

    @property
    def folder(self) -> str:
        """URI of what belongs to the run alone."""
        return run_folder(self.output, self.run_id)

    @property
    def commits_folder(self) -> str:
        """URI of the folder of the commit records."""
        return f"{self.folder}/commits"

    def commit_uri(self, shard: int) -> str:
        """URI of a shard's commit record."""
        return f"{self.commits_folder}/{commit_name(shard)}"

    @property
    def sections_folder(self) -> str:
        """URI of the records of what is published so far, before the manifest."""
        return f"{self.folder}/sections"

    @property
    def masks_folder(self) -> str:
        """URI below which the masks lie: by `mask_key`, or in tars by shard."""
        return masks_folder(self.output, self.run_id)

    @property
    def masks_in_tars(self) -> bool:
        """Return whether the masks of a shard lie in a tar; runs of earlier versions have files."""
        return bool(self.record.settings.get("masks") == "tar")

    def table_folder(self, table: str) -> str:
        """URI of the folder of a table's files, one of `TABLES`."""
        return f"{self.output}/{table}/run={self.run_id}"

    @property
    def manifest_uri(self) -> str:
        """URI of manifest.json."""
        return f"{self.folder}/manifest.json"

    @property
    def success_uri(self) -> str:
        """URI of the marker that is written last."""
        return f"{self.folder}/_SUCCESS"

    def finished(self) -> bool:
        """Return whether the run is published to the end."""
        return self.storage.exists(self.success_uri)

    def manifest(self) -> Manifest | None:
        """Read the manifest; None before every shard is committed."""
        return _read(self.storage, self.manifest_uri, Manifest)

    def committed(self) -> list[int]:
        """List the shards whose commit record a listing shows: what to look for, no proof."""
        found = map(shard_of, self.storage.children(self.commits_folder))
        return sorted(shard for shard in found if 0 <= shard < self.record.num_shards)

    def missing(self) -> Shards:
        """List what is left to do: the planned shards without a commit record."""
        return Shards(f"{self.folder}/plan", self.record.plan, self._unlisted())

    def _unlisted(self) -> Iterator[int]:
        listed = bytearray(self.record.num_shards)
        for shard in self.committed():
            listed[shard] = True
        return (shard for shard, there in enumerate(listed) if not there)

    def uncommitted(self) -> list[int]:
        """Find the shards without a commit record; asks by name for what a listing leaves out."""
        others = list(self._unlisted())
        with ThreadPoolExecutor(_READ_THREADS) as pool:
            there = pool.map(self.storage.exists, map(self.commit_uri, others))
            return [shard for shard, exists in zip(others, there, strict=True) if not exists]

    @property
    def shards(self) -> range:
        """Numbers of the planned shards, or of those of the files that it was narrowed to."""
        first = self.record.plan[0].first_shard if self.record.plan else 0
        return range(first, first + sum(len(part.num_images) for part in self.record.plan))

    def narrowed(self, plan: Sequence[PlanPart]) -> "Run":
        """Return the run as if its plan were some consecutive files of it.

        Args:
            plan: The files.
        """
        return replace(self, record=self.record.model_copy(update={"plan": list(plan)}))

    @property
    def shard_sizes(self) -> list[int]:
        """Number of images of every planned shard, in order."""
        return [number for part in self.record.plan for number in part.num_images]

    def plan(self) -> Iterator[pa.Table]:
        """Read the plan, file by file."""
        for part in self.record.plan:
            uri = f"{self.folder}/plan/{part.file}"
            yield _table(uri, read_plan(self.storage, uri))

    def commit(self, shard: int) -> pa.Table:
        """Read a shard's commit record. Raises InputError if it is damaged."""
        return _table(self.commit_uri(shard), self.storage.read(self.commit_uri(shard)))

    def commits(
        self,
        columns: list[str] | None = None,
        read: Callable[[int], bytes] | None = None,
    ) -> Iterator[pa.Table]:
        """Read the commit record of every planned shard, in order, many at a time.

        Args:
            columns: Of `schema.COMMIT`; None reads all.
            read: Reads the record of a shard, in a thread; None reads whatever stands there.

        Raises:
            StoreError: A shard has no commit record, whatever a listing has shown.
            InputError: A record has another number of rows than its shard has images.
        """
        read = read or (lambda shard: self.storage.read(self.commit_uri(shard)))
        records = answers_of(partial(_committed, read), self.shards, _COMMITS_IN_FLIGHT)
        for shard, data, planned in zip(self.shards, records, self.shard_sizes, strict=True):
            table = _read_columns(self.commit_uri(shard), data, COMMIT, columns)
            self._check_size(shard, table.num_rows, planned)
            yield table

    def _check_size(self, shard: int, num_rows: int, planned: int) -> None:
        if num_rows != planned:
            raise InputError(
                f"{self.commit_uri(shard)} holds {num_rows} rows, its shard has {planned} images; "
                "restore it, or remove it, so that label does its images again"
            )

    def published(self, manifest: Manifest, columns: list[str]) -> Iterator[pa.Table]:
        """Read the published images table, file by file.

        Args:
            manifest: The manifest of the run, which names the files.
            columns: Of `schema.IMAGES`.
        """
        for part in manifest.images:
            uri = f"{self.output}/{part.file}"
            try:
                data = self.storage.read(uri)
            except StoreError as error:
                if error.code is not ErrorCode.NOT_FOUND:
                    raise
                raise damaged(uri, error) from error
            yield _read_columns(uri, data, IMAGES, columns)


def _committed(read: Callable[[int], bytes], shard: int) -> bytes:
    try:
        return read(shard)
    except StoreError as error:
        if error.code is not ErrorCode.NOT_FOUND:
            raise
        message = f"shard {shard} has no commit record: {error.message}"
        raise StoreError(error.code, message) from error


def _read_columns(
    uri: str, data: bytes, schema: pa.Schema, columns: list[str] | None = None
) -> pa.Table:
    """Read columns of a table that may be of an earlier version. Raises InputError."""
    names = columns or schema.names
    wanted = pa.schema([schema.field(name) for name in names])
    table = of_any_version(_table(uri, data, names), wanted)
    if lacking := set(names) - set(table.column_names):
        raise damaged(uri, ValueError(f"it lacks the columns {', '.join(sorted(lacking))}"))
    return table


def new_run_id(now: datetime | None = None) -> str:
    """Name a run; all such names have one length."""
    return f"{now or datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"


def run_folder(output: str, run_id: str) -> str:
    """URI of what belongs to one run alone: its record, plan, commits and manifest."""
    return f"{output}/runs/{run_id}"


def is_left_over(storage: Storage, output: str, run_id: str) -> bool:
    """Return whether a folder is what a removal that was cut off has left of a run.

    A run has its record before anything but its plan, and loses it first.

    Args:
        storage: Reads and writes the output.
        output: URI of its folder.
        run_id: Name of the run.
    """
    names = storage.children(run_folder(output, run_id))
    return "run.json" not in names and not _AFTER_THE_RECORD.isdisjoint(names)


def masks_folder(output: str, run_id: str) -> str:
    """URI below which the masks of a run lie: by `mask_key`, or in tars by shard."""
    return f"{output}/masks/run={run_id}"


def commit_name(shard: int) -> str:
    """Name of a shard's commit record."""
    return f"shard-{shard:06d}.parquet"


def shard_of(name: str) -> int:
    """Tell a shard by the name of its commit record; -1 if it is none."""
    number = name[len("shard-") : -len(".parquet")]
    known = number.isascii() and number.isdigit() and name == commit_name(int(number))
    return int(number) if known else -1


def read_shard(storage: Storage, task: ShardTask) -> list[ImageRow]:
    """Read the images of one shard from the plan."""
    return planned_images(task, read_plan(storage, task["plan_uri"]))


def read_plan(storage: Storage, uri: str) -> bytes:
    """Read a file of a plan.

    Args:
        storage: Reads the output.
        uri: The URI of the file.

    Raises:
        InputError: It alone is gone, so that no rerun helps.
        StoreError: The store did not answer, or all of the run is out of reach.
    """
    try:
        return storage.read(uri)
    except StoreError as error:
        record = f"{uri.rpartition('/plan/')[0]}/run.json"
        if error.code is not ErrorCode.NOT_FOUND or not storage.exists(record):
            raise
        raise damaged(uri, error) from error


def planned_images(task: ShardTask, data: bytes) -> list[ImageRow]:
    """Read the images of one shard.

    Args:
        task: The shard.
        data: The file of the plan that holds it.

    Raises:
        InputError: The file is damaged.
    """
    table = _table(task["plan_uri"], data, row_group=task["row_group"])
    rows: list[ImageRow] = table.drop_columns("shard").to_pylist()
    return rows


def damaged(uri: str, reason: object) -> InputError:
    """Build the error for a file of a run that a crash of the machine has cut off.

    Args:
        uri: Its place.
        reason: What its reader says.
    """
    first_line = str(reason).partition("\n")[0] or type(reason).__name__
    return InputError(f"{uri} is damaged: {first_line}; {_REPAIR}")


def _table(
    uri: str, data: bytes, columns: list[str] | None = None, row_group: int | None = None
) -> pa.Table:
    try:
        return read_parquet(data, columns, row_group)
    except DAMAGE as error:
        raise damaged(uri, error) from error


def find_run(storage: Storage, output: str, run_id: str) -> Run | None:
    """Look a run up by name; None if there is no such run with a whole plan.

    A copy of a run's folder under another name is no run: all that it names is the run's own.

    Raises:
        InputError: Its record is damaged.
    """
    uri = f"{run_folder(output, run_id)}/run.json"
    record = _read(storage, uri, RunRecord)
    if record is not None and record.run_id != run_id:
        _log.warning(
            "%s is the record of the run %s: a copy is passed over; move it out of %s/runs",
            uri,
            record.run_id,
            output,
        )
        return None
    return None if record is None else Run(storage, output, record)


def _read(storage: Storage, uri: str, kind: type[_Object]) -> _Object | None:
    """Read an object of a run; None if there is none. Raises InputError if it is damaged."""
    data = storage.find(uri)
    try:
        return None if data is None else kind.model_validate_json(data)
    except ValidationError as error:
        raise damaged(uri, error.errors()[0]["msg"]) from error
