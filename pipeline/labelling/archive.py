"""Archive: summaries of finished runs, in few objects.

So a start costs as much after a thousand nights as after ten. <output>/history/000003-HASH.json.gz
holds the records and manifests of runs, and names the files with their answers; the highest number
counts. All of it is derived and none of it the truth: what is missing, damaged, or names a run that
is gone, is left aside, and the runs themselves are read.
"""

import gzip
import io
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.labelling.records import Manifest, NetworkRecord, RunRecord
from pipeline.labelling.runs import Run, damaged
from pipeline.labelling.schema import IMAGES, OK
from pipeline.store.parquet import DAMAGE, read_parquet
from pipeline.store.storage import Storage, sha256_hex

_log = logging.getLogger(__name__)

_ENDING = ".json.gz"
# Of small parts, which are then made into one.
_MAX_PARTS = 16
_ROWS_PER_PART = 2_000_000
# The newest archives stay: somebody may have read the last but one a moment ago.
_KEPT = 2

_COLUMNS = ["image_id", "status", "error_code", "num_bytes", "height", "width", "attempts"]
# The limit that a row's run had; no table holds it, only the run's record.
_LIMIT_S = pa.field("max_image_s", pa.float64())
# What the next night needs to know of an image.
ANSWERS = pa.schema([IMAGES.field(name) for name in _COLUMNS]).append(_LIMIT_S)


@dataclass(frozen=True)
class ArchivedRun:
    """A finished run, as it stands in its own folder.

    Attributes:
        record: Its record; runs of one network share what is said of it.
        manifest: Its manifest as JSON: a start asks for few of a thousand.
    """

    record: RunRecord
    manifest: str


@dataclass(frozen=True)
class Archive:
    """Finished runs, and by fingerprint the files that hold all of their answers."""

    runs: Sequence[ArchivedRun]
    answers: Mapping[str, Sequence[str]]

    @property
    def run_ids(self) -> frozenset[str]:
        """Names of the runs."""
        return frozenset(run.record.run_id for run in self.runs)

    @staticmethod
    def from_json(text: bytes) -> "Archive":
        """Read what `to_json` has written, or an earlier version, which repeats the networks.

        Raises:
            ValueError: It is something else; also KeyError, TypeError, AttributeError.
        """
        found = json.loads(text)
        described = found.get("networks", {}).items()
        networks = {name: NetworkRecord.model_validate(one) for name, one in described}
        runs = [_archived(one["record"], one["manifest"], networks) for one in found["runs"]]
        answers = {str(name): list(map(str, parts)) for name, parts in found["answers"].items()}
        return Archive(runs, answers)

    def to_json(self) -> bytes:
        """Write it, each network once."""
        networks: dict[str, Any] = {}
        runs = []
        for run in self.runs:
            record = run.record.model_dump(mode="json")
            network = record["network"]
            name = sha256_hex(json.dumps(network, sort_keys=True).encode())[:16]
            networks[name] = network
            runs.append({"record": {**record, "network": name}, "manifest": run.manifest})
        return json.dumps({"networks": networks, "runs": runs, "answers": self.answers}).encode()


def _archived(
    record: dict[str, Any], manifest: str | dict[str, Any], networks: Mapping[str, NetworkRecord]
) -> ArchivedRun:
    network = record["network"]
    given = networks[network] if isinstance(network, str) else network
    text = manifest if isinstance(manifest, str) else json.dumps(manifest)
    return ArchivedRun(RunRecord.model_validate({**record, "network": given}), text)


def history_folder(output: str) -> str:
    """URI of all archives of an output."""
    return f"{output}/history"


def read_archive(storage: Storage, output: str) -> Archive | None:
    """Read the newest archive; None if there is none that can be read.

    Raises:
        StoreError: The store did not answer.
    """
    names = _archives(storage, output)
    if not names:
        return None
    uri = f"{history_folder(output)}/{names[-1]}"
    try:
        return _read(storage, uri)
    except InputError as error:
        _log.warning("%s; so every run is read", error)
        return None


def _read(storage: Storage, uri: str) -> Archive | None:
    """Read one archive; None if it is gone. Raises InputError."""
    data = storage.find(uri)
    if data is None:
        return None
    try:
        return Archive.from_json(gzip.decompress(data))
    except (ValueError, LookupError, TypeError, AttributeError, OSError, EOFError) as error:
        raise InputError(f"{uri} can't be used: {error}") from error


def answers_of_run(run: Run, manifest: Manifest) -> Iterator[pa.Table]:
    """Read what a published run has said of its images; columns of `ANSWERS`.

    Args:
        run: The run.
        manifest: Of it.

    Raises:
        InputError: A table of the run is damaged.
    """
    limit_s = run.record.settings.get(_LIMIT_S.name)
    for table in run.published(manifest, _COLUMNS):
        limits = pa.array([limit_s] * table.num_rows, _LIMIT_S.type)
        yield table.append_column(_LIMIT_S, limits).cast(ANSWERS)


def archived_answers(storage: Storage, output: str, parts: Iterable[str]) -> Iterator[pa.Table]:
    """Read what archived runs of a network have said; columns of `ANSWERS`.

    Args:
        storage: Reads the output.
        output: URI of its folder.
        parts: Files of answers, as an archive names them.

    Raises:
        InputError: A file of answers is damaged.
        StoreError: A file of answers is not there.
    """
    for name in parts:
        uri = f"{history_folder(output)}/{name}"
        data = storage.read(uri)
        try:
            yield read_parquet(data).cast(ANSWERS)
        except (*DAMAGE, KeyError) as error:
            raise damaged(uri, error) from error


def write_archive(
    storage: Storage, output: str, before: Archive | None, new: Sequence[tuple[Run, Manifest]]
) -> None:
    """Write an archive of the runs of another one, and of some more.

    Args:
        storage: Reads and writes the output.
        output: URI of its folder.
        before: The archive that there is.
        new: Finished runs that are not in it.

    Raises:
        InputError: A table of a run is damaged.
        StoreError: The output can't be written.
    """
    answers = {name: list(parts) for name, parts in (before.answers if before else {}).items()}
    for fingerprint in {run.record.network.fingerprint for run, _ in new}:
        rows = [
            answers_of_run(run, manifest)
            for run, manifest in new
            if run.record.network.fingerprint == fingerprint
        ]
        parts = answers.get(fingerprint, [])
        small = [part for part in parts if _num_rows(part) < _ROWS_PER_PART]
        if len(small) >= _MAX_PARTS:
            rows.insert(0, archived_answers(storage, output, small))
            parts = [part for part in parts if part not in small]
        written = _write_answers(storage, output, fingerprint, chain.from_iterable(rows))
        answers[fingerprint] = [*parts, *written]
    runs = [ArchivedRun(run.record, manifest.model_dump_json()) for run, manifest in new]
    archive = Archive([*(before.runs if before else ()), *runs], answers)
    # Without a time in it, equal archives have equal bytes.
    data = gzip.compress(archive.to_json(), mtime=0)
    number = int(names[-1][:6]) + 1 if (names := _archives(storage, output)) else 1
    name = f"{number:06d}-{sha256_hex(data)[:12]}{_ENDING}"
    storage.create(f"{history_folder(output)}/{name}", data)


def remove_archives(storage: Storage, output: str) -> None:
    """Remove all archives, where what they were made of has changed.

    Raises:
        StoreError: They can't be removed.
    """
    if storage.children(history_folder(output)):
        for entry in list(storage.walk(history_folder(output))):
            storage.remove(entry.uri)


def replaced_files(storage: Storage, output: str) -> list[str]:
    """Name the files of earlier archives that the newest ones have no use for.

    Files of answers that no archive names stay: one that is being written may be about to, and
    neither a lock nor a time in a listing tells it from what a kill has left. So do those that only
    a damaged one has named. With the next run that is removed all of them go.

    Args:
        storage: Reads the output.
        output: URI of its folder.

    Returns:
        In the order in which they are to go: an archive after the files that it names, so that
        they are still named where a removal is cut off.

    Raises:
        InputError: One of the newest is damaged, so that it does not say what it needs.
        StoreError: The store did not answer.
    """
    uris = [f"{history_folder(output)}/{name}" for name in _archives(storage, output)]
    earlier, newest = uris[:-_KEPT], uris[-_KEPT:]
    needed = set(chain.from_iterable(_parts_of(storage, uri) for uri in newest))
    parts: set[str] = set()
    for uri in earlier:
        with suppress(InputError):
            parts.update(_parts_of(storage, uri))
    return [*(f"{history_folder(output)}/{part}" for part in sorted(parts - needed)), *earlier]


def _parts_of(storage: Storage, uri: str) -> Iterator[str]:
    archive = _read(storage, uri)
    return chain.from_iterable(archive.answers.values() if archive else ())


def _archives(storage: Storage, output: str) -> list[str]:
    names = storage.children(history_folder(output))
    return [name for name in names if name[:6].isdecimal() and name.endswith(_ENDING)]


def _write_answers(
    storage: Storage, output: str, fingerprint: str, tables: Iterable[pa.Table]
) -> Iterator[str]:
    for rows in _in_parts(tables):
        buffer = io.BytesIO()
        pq.write_table(rows, buffer, compression="zstd")
        data = buffer.getvalue()
        name = f"answers/{fingerprint[:16]}/{rows.num_rows:08d}-{sha256_hex(data)[:16]}.parquet"
        storage.create(f"{history_folder(output)}/{name}", data)
        yield name


def _num_rows(part: str) -> int:
    """Tell the rows of a file of answers by its name; earlier versions' names have no number."""
    number, dash, _ = part.rpartition("/")[2].partition("-")
    return int(number) if dash else 0


def _in_parts(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    part: list[pa.Table] = []
    for table in map(_without_what_is_known, tables):
        part.append(table)
        if sum(one.num_rows for one in part) >= _ROWS_PER_PART:
            yield pa.concat_tables(part)
            part = []
    if part:
        yield pa.concat_tables(part)


def _without_what_is_known(answers: pa.Table) -> pa.Table:
    """Empty the columns that only failed images are judged by: most rows are their id."""
    labelled = pc.equal(answers["status"], OK)
    for place, field in enumerate(ANSWERS):
        if field.name not in ("image_id", "status"):
            nothing = pa.scalar(None, field.type)
            column = pc.if_else(labelled, nothing, answers[field.name])
            answers = answers.set_column(place, field, column)
    return answers
