"""The Delta tables: `images` and `class_statistics` of an output, for readers that know Delta.

Their logs are derived from the manifests of the finished runs, and never the truth. What is
written is the difference between the two, whatever it comes from: what one driver could not write
is made up for by the next.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pipeline.errors import ErrorCode, InputError, PipelineError, StoreError
from pipeline.labelling.history import History
from pipeline.labelling.records import Manifest, TablePart
from pipeline.labelling.runs import TABLES, Run, run_folder
from pipeline.labelling.schema import CLASS_STATISTICS, IMAGES
from pipeline.redact import redacted
from pipeline.store.delta_table import Change, DeltaLog, TableFile
from pipeline.store.in_flight import answers_of
from pipeline.store.storage import Storage

_log = logging.getLogger(__name__)

_SCHEMAS = {"images": IMAGES, "class_statistics": CLASS_STATISTICS}
# By the names of the folders, as readers that know no Delta find the runs.
_PARTITION = "run"
_LOOKED_UP_AT_A_TIME = 32


def keep_up(run: Run, manifest: Manifest, *, begin: bool) -> None:
    """Bring the logs up to a run that was published, and to all before it.

    Logs that can't be written cost a warning: masks and tables are whole without them.

    Args:
        run: The run.
        manifest: Its manifest, which stands in the output.
        begin: Whether to begin logs where there are none.
    """
    _keep_up(run.storage, run.output, {run.run_id: manifest}, begin=begin)


def catch_up(storage: Storage, output: str) -> None:
    """Bring the logs up to the finished runs, and begin them where there are none, as `keep_up`.

    Args:
        storage: Writes the output.
        output: URI of its folder.
    """
    _keep_up(storage, output, {}, begin=True)


def _keep_up(storage: Storage, output: str, newest: Mapping[str, Manifest], *, begin: bool) -> None:
    said = f"the Delta log of {output} lacks run(s)"
    try:
        tables = _tables(storage, output)
        if not begin and not any(table.log.exists() for table in tables):
            return
        if not storage.conditional_put:
            _log.warning("%s, since the store has no put-if-absent, which it needs", said)
            return
        published = {**_published(storage, output), **newest}
    except PipelineError as error:
        _log.warning("%s until the next one is published: %s", said, error)
        return
    for table in tables:
        try:
            table.name_files_of(published, frozenset(newest))
        except Exception as error:  # noqa: BLE001 - whatever it is, the run is done
            _log.warning(
                "%s in table %s until the next one is published, or this command is run again "
                "with --delta-log: %s",
                *(said, table.name, redacted(str(error))),
            )


def forget(storage: Storage, output: str, run_id: str) -> None:
    """Take a run out of the logs: before its files are removed, and after, since others add runs.

    Args:
        storage: Reads and writes the output.
        output: URI of its folder.
        run_id: The name of the run.

    Raises:
        InputError: A log is damaged, or another program's by now.
        StoreError: The store did not answer.
    """
    for table in _tables(storage, output):
        if table.log.exists():
            table.log.change(lambda files: Change(removed=_of_run(files, run_id)))


def contradictions(history: History, runs: Sequence[Run]) -> list[str]:
    """Compare the logs, where there are some, with finished runs and with what runs there are.

    Args:
        history: The output's runs, as they are now.
        runs: Of these the files are compared.

    Returns:
        What a log says otherwise, or why it can't be read.

    Raises:
        InputError: A record is damaged.
        StoreError: The store did not answer.
    """
    tables = _tables(history.storage, history.output)
    return [said for table in tables for said in table.contradictions(history, runs)]


@dataclass(frozen=True)
class _Table:
    """One of `TABLES` of an output."""

    storage: Storage
    output: str
    name: str

    @property
    def log(self) -> DeltaLog:
        """Its Delta log, which may not be there."""
        folder = f"{self.output}/{self.name}"
        return DeltaLog(self.storage, folder, _SCHEMAS[self.name], _PARTITION)

    def name_files_of(self, manifests: Mapping[str, Manifest], newest: frozenset[str]) -> None:
        """Name the files of published runs, and no others.

        Args:
            manifests: By run.
            newest: Runs whose files may have been written anew.
        """
        self.log.change(lambda files: self._difference(files, manifests, newest))

    def files_of(self, manifests: Mapping[str, Manifest]) -> set[TableFile]:
        """Look up the files that manifests name, by run; those that are gone are left out."""
        named = [
            (run_id, part)
            for run_id, manifest in manifests.items()
            for part in self._parts_of(manifest)
        ]
        sizes = answers_of(lambda one: self._size_of(one[1]), named, _LOOKED_UP_AT_A_TIME)
        return {
            TableFile(self._path_of(part), run_id, size, part.num_rows)
            for (run_id, part), size in zip(named, sizes, strict=True)
            if size is not None
        }

    def contradictions(self, history: History, runs: Sequence[Run]) -> Iterator[str]:
        """Say what the log says otherwise than runs do."""
        if not self.log.exists():
            return
        try:
            named = _by_run(self.log.files())
        except InputError as error:
            yield str(error)
            return
        manifests = _readable(history, runs)
        published = _by_run(self.files_of(manifests))
        for run_id in manifests:
            yield from self._contradictions(published.get(run_id, set()), named.get(run_id, set()))
        for run_id in sorted(named.keys() - {run.run_id for run in history.runs()}):
            yield f"{self.name} names files of run {run_id}, which is none of this output"

    def _contradictions(self, published: set[TableFile], named: set[TableFile]) -> Iterator[str]:
        for what, files in (("lacks", published - named), ("names", named - published)):
            for file in _sorted(files):
                yield f"{self.name} {what} {file.path} of {file.num_bytes} bytes"

    def _difference(
        self,
        files: Iterable[TableFile],
        manifests: Mapping[str, Manifest],
        newest: frozenset[str],
    ) -> Change:
        named = _by_run(files)
        others = {
            run_id
            for run_id in {*named, *manifests} - newest
            if run_id not in manifests
            or self._paths_of(manifests[run_id]) != {file.path for file in named.get(run_id, ())}
        }
        published = {*newest, *self._published_now(others)}
        there = self.files_of({one: manifests[one] for one in published if one in manifests})
        # Of another run that somebody has published meanwhile the log is right.
        judged = (others - published) | (published & manifests.keys())
        here = {file for run_id in judged for file in named.get(run_id, ())}
        paths = {file.path for file in there}
        return Change(_sorted(there - here), _sorted(one for one in here if one.path not in paths))

    def _published_now(self, run_ids: Iterable[str]) -> set[str]:
        """Ask the store which runs are published: many at first, and few of a night."""
        asked = sorted(run_ids)
        answers = answers_of(self._is_published, asked, _LOOKED_UP_AT_A_TIME)
        return {run_id for run_id, there in zip(asked, answers, strict=True) if there}

    def _is_published(self, run_id: str) -> bool:
        """Ask the store, now; a run that is being removed loses its record first."""
        folder = run_folder(self.output, run_id)
        names = ("run.json", "manifest.json")
        return all(self.storage.exists(f"{folder}/{name}") for name in names)

    def _parts_of(self, manifest: Manifest) -> Sequence[TablePart]:
        return manifest.images if self.name == "images" else manifest.class_statistics

    def _paths_of(self, manifest: Manifest) -> set[str]:
        return set(map(self._path_of, self._parts_of(manifest)))

    def _path_of(self, part: TablePart) -> str:
        return part.file.removeprefix(f"{self.name}/")

    def _size_of(self, part: TablePart) -> int | None:
        try:
            return self.storage.stat(f"{self.output}/{part.file}").num_bytes
        except StoreError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
            return None


def _tables(storage: Storage, output: str) -> list[_Table]:
    return [_Table(storage, output, name) for name in TABLES]


def _published(storage: Storage, output: str) -> dict[str, Manifest]:
    """Read the manifests of all finished runs as they are now."""
    history = History.with_archive(storage, output)
    runs = history.runs()
    finished = [one for one, done in zip(runs, history.finished(runs), strict=True) if done]
    manifests = zip(finished, history.manifests(finished), strict=True)
    return {one.run_id: its for one, its in manifests if its is not None}


def _readable(history: History, runs: Sequence[Run]) -> dict[str, Manifest]:
    """Read the manifests of finished runs; those that are damaged are for others to say."""
    found: dict[str, Manifest] = {}
    for run, finished in zip(runs, history.finished(runs), strict=True):
        with suppress(InputError):
            [manifest] = history.manifests([run]) if finished else [None]
            if manifest is not None:
                found[run.run_id] = manifest
    return found


def _by_run(files: Iterable[TableFile]) -> dict[str, set[TableFile]]:
    found: dict[str, set[TableFile]] = {}
    for file in files:
        found.setdefault(file.partition, set()).add(file)
    return found


def _of_run(files: Iterable[TableFile], run_id: str) -> list[TableFile]:
    return [file for file in files if file.partition == run_id]


def _sorted(files: Iterable[TableFile]) -> list[TableFile]:
    return sorted(files, key=lambda file: file.path)
