"""A Delta table: which Parquet files are in it, and how to change that.

delta-rs knows the format, and `Storage` knows the store: the log is copied to a temporary folder,
committed to there, and the commit is created in the store, put-if-absent. "Delta Transaction Log
Protocol" (github.com/delta-io/delta, PROTOCOL.md), sections Delta Log Entries, Add File and Remove
File, Transaction Identifiers, and Checkpoints.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.errors import ErrorCode, InputError, PipelineError, StoreError
from pipeline.store.in_flight import answers_of
from pipeline.store.panics import is_panic
from pipeline.store.storage import Storage

if TYPE_CHECKING:
    from deltalake import CommitProperties, DeltaTable, Field, PostCommitHookProperties
    from deltalake.transaction import AddAction, RemoveAction

_log = logging.getLogger(__name__)

_LOG = "_delta_log"
# Of the protocol: later ones may delete rows of a file, or call columns otherwise.
_READER, _WRITER = 1, 2
_LAST_CHECKPOINT = "_last_checkpoint"
_OF_A_VERSION = re.compile(r"(\d{20})\.[^/]*(json|parquet)")
_READ_AT_A_TIME = 32
# Somebody else may commit at the same time; then what is lacking is found anew.
_ATTEMPTS = 10


@dataclass(frozen=True)
class TableFile:
    """A Parquet file of a table.

    Attributes:
        path: Relative to the table's folder.
        partition: The value of the column that the table is divided by, as the path has it.
        num_bytes: Its size.
        num_rows: Its rows.
    """

    path: str
    partition: str
    num_bytes: int
    num_rows: int


@dataclass(frozen=True)
class Change:
    """What a commit changes.

    Attributes:
        added: Files that are in the table from then on; of a path that is in it, the new size.
        removed: Files that are not in it any more; whether they are there does not matter.
    """

    added: Sequence[TableFile] = ()
    removed: Sequence[TableFile] = ()

    @property
    def partitions(self) -> list[str]:
        """Whose files are changed; none where nothing is."""
        return sorted({file.partition for file in (*self.added, *self.removed)})


@dataclass(frozen=True)
class DeltaLog:
    """The log of a table.

    Attributes:
        storage: Enters the table's folder.
        folder: URI of the table.
        schema: Of its files, without the column that it is divided by.
        partition: The name of that column, a string.
    """

    storage: Storage
    folder: str
    schema: pa.Schema
    partition: str

    def exists(self) -> bool:
        """Return whether the folder is a Delta table. Raises StoreError."""
        return bool(self.storage.children(self._uri))

    def files(self) -> list[TableFile]:
        """Read which files are in the table; none where it is no Delta table.

        Raises:
            InputError: The log is damaged, or of a kind that delta-rs does not read.
            StoreError: The store did not answer.
        """
        with self._copy() as copy:
            table = self._opened(copy)
            return [] if table is None else self._files_of(table)

    def change(self, find: Callable[[list[TableFile]], Change]) -> None:
        """Commit what has to be changed; the folder becomes a Delta table if it is none.

        Args:
            find: Finds what has to be changed, given the files that are in the table. It is asked
                again if somebody else has committed meanwhile.

        Raises:
            InputError: As `files`.
            StoreError: The store did not answer, or others commit all the time.
        """
        for _ in range(_ATTEMPTS):
            with self._copy() as copy:
                table = self._opened(copy)
                if table is not None and (lacking := self._lacking(table)):
                    table.alter.add_columns(lacking, post_commithook_properties=_hooks())
                    self._put(copy, table.version())
                    continue
                found = find([] if table is None else self._files_of(table))
                if not found.partitions or self._put(copy, self._commit(copy, table, found)):
                    return
        raise StoreError(
            ErrorCode.CHANGED, f"{self._uri}: others have committed {_ATTEMPTS} times meanwhile"
        )

    @property
    def _uri(self) -> str:
        return f"{self.folder}/{_LOG}"

    @contextmanager
    def _copy(self) -> Iterator[Path]:
        """Copy what tells the state of the table: the last checkpoint, and the commits since."""
        with _naming(self._uri), TemporaryDirectory(prefix="fcn-delta-") as folder:
            copy = Path(folder, _LOG)
            copy.mkdir()
            names = self._names_since_checkpoint()
            uris = [f"{self._uri}/{name}" for name in names]
            for name, data in zip(
                names, answers_of(self.storage.read, uris, _READ_AT_A_TIME), strict=True
            ):
                (copy / name).write_bytes(data)
            yield Path(folder)

    def _names_since_checkpoint(self) -> list[str]:
        found = [*map(_OF_A_VERSION.fullmatch, self.storage.children(self._uri))]
        versions = {one.string: int(one[1]) for one in found if one is not None}
        summed_up = [versions[name] for name in versions if ".checkpoint." in name]
        last = _version_of(self.storage.find(f"{self._uri}/{_LAST_CHECKPOINT}"))
        if last not in summed_up:  # it is a hint, and may be damaged
            return list(versions)
        names = [name for name, version in versions.items() if version >= last]
        return [_LAST_CHECKPOINT, *names]

    def _opened(self, copy: Path) -> "DeltaTable | None":
        """Open the copy, if it is of the protocol that is written here: nothing else is undone."""
        from deltalake import DeltaTable  # noqa: PLC0415 - few commands need it

        if not any((copy / _LOG).iterdir()):
            return None
        table = DeltaTable(copy)
        protocol = table.protocol()
        if protocol.min_reader_version > _READER or protocol.min_writer_version > _WRITER:
            raise ValueError(
                f"another program has made it a table for readers of version "
                f"{protocol.min_reader_version} and writers of version "
                f"{protocol.min_writer_version}; here {_READER} and {_WRITER} are written"
            )
        return table

    def _lacking(self, table: "DeltaTable") -> "list[Field]":
        """List the columns that were not thought of when the table was made."""
        from deltalake import Schema  # noqa: PLC0415 - as above

        there = {field.name for field in table.schema().fields}
        fields = Schema.from_arrow(self._columns).fields
        return [field for field in fields if field.name not in there]

    def _files_of(self, table: "DeltaTable") -> list[TableFile]:
        found = pa.table(table.get_add_actions(flatten=True))
        names = ("path", f"partition.{self.partition}", "size_bytes", "num_records")
        columns = [found[name].to_pylist() for name in names]
        return [TableFile(*values) for values in zip(*columns, strict=True)]

    def _commit(self, copy: Path, table: "DeltaTable | None", found: Change) -> int:
        """Commit to the copy; returns the version."""
        if table is None:
            self._create(copy, found)
            return 0
        table.create_write_transaction(
            [*self._adds(found.added), *self._removes(found.removed)],
            mode="append",
            schema=self._columns,
            partition_by=[self.partition],
            commit_properties=_properties(found, table),
            post_commithook_properties=_hooks(),
        )
        table.update_incremental()
        self._check(table, found)
        return table.version()

    def _check(self, table: "DeltaTable", found: Change) -> None:
        """Refuse a commit that does nothing, as of paths that another writer spells in his way."""
        there = set(self._files_of(table))
        if not there.issuperset(found.added) or not there.isdisjoint(found.removed):
            raise ValueError("it holds files of another program, which can't be changed here")

    def _create(self, copy: Path, found: Change) -> None:
        from deltalake import Schema  # noqa: PLC0415 - as above
        from deltalake.transaction import create_table_with_add_actions  # noqa: PLC0415

        create_table_with_add_actions(
            str(copy),
            Schema.from_arrow(self._columns),
            self._adds(found.added),
            partition_by=[self.partition],
            commit_properties=_properties(found, None),
            post_commithook_properties=_hooks(),
        )

    def _put(self, copy: Path, version: int) -> bool:
        """Bring a commit into the store, and what sums it up; False if the version is taken."""
        commit = f"{version:020d}.json"
        if not self.storage.create(f"{self._uri}/{commit}", (copy / _LOG / commit).read_bytes()):
            return False
        sums = sorted((copy / _LOG).glob(f"{version:020d}.checkpoint*"))
        try:
            for path in (*sums, copy / _LOG / _LAST_CHECKPOINT) if sums else ():
                self.storage.write(f"{self._uri}/{path.name}", path.read_bytes())
        except StoreError as error:  # it is committed all the same, and the next hundred sums it up
            _log.warning("%s has no checkpoint of version %d: %s", self._uri, version, error)
        return True

    @property
    def _columns(self) -> pa.Schema:
        return self.schema.append(pa.field(self.partition, pa.string()))

    def _adds(self, files: Iterable[TableFile]) -> "list[AddAction]":
        from deltalake.transaction import AddAction  # noqa: PLC0415 - as above

        return [
            AddAction(
                file.path,
                file.num_bytes,
                {self.partition: file.partition},
                modification_time=_now_ms(),
                data_change=True,
                stats=json.dumps({"numRecords": file.num_rows}),
            )
            for file in files
        ]

    def _removes(self, files: Iterable[TableFile]) -> "list[RemoveAction]":
        from deltalake.transaction import RemoveAction  # noqa: PLC0415 - as above

        return [
            RemoveAction(
                file.path,
                data_change=True,
                deletion_timestamp=_now_ms(),
                size=file.num_bytes,
                partition_values={self.partition: file.partition},
            )
            for file in files
        ]


@contextmanager
def _naming(uri: str) -> Iterator[None]:
    """Say of which log something is true that libraries say of its copy, whatever they raise."""
    try:
        yield
    except PipelineError:
        raise
    except OSError as error:
        raise StoreError(
            ErrorCode.FAILED,
            f"{uri} is copied to a temporary folder, which has no room or can't be written: "
            f"{error}; set the environment variable TMPDIR to a folder on a larger disk",
        ) from error
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        said = str(error).partition("\n")[0]
        raise InputError(
            f"{uri} can't be used: {said}; to begin it anew, remove the folders _delta_log of both "
            "tables and call label with --delta-log"
        ) from error


def _version_of(last_checkpoint: bytes | None) -> int | None:
    try:
        found = json.loads(last_checkpoint or b"{}")
    except (ValueError, RecursionError):
        return None
    version = found.get("version") if isinstance(found, dict) else None
    return version if isinstance(version, int) else None


def _properties(found: Change, table: "DeltaTable | None") -> "CommitProperties":
    """Number the commits that change a partition, for readers who follow one."""
    from deltalake import CommitProperties, Transaction  # noqa: PLC0415 - as above

    def numbered(name: str) -> Transaction:
        before = None if table is None else table.transaction_version(name)
        return Transaction(name, (before or 0) + 1)

    return CommitProperties(app_transactions=[numbered(f"fcn:{one}") for one in found.partitions])


def _hooks() -> "PostCommitHookProperties":
    """Write checkpoints, and leave the log whole: who labels need not have the right to delete."""
    from deltalake import PostCommitHookProperties  # noqa: PLC0415 - as above

    return PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
