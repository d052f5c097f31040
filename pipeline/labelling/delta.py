"""The Delta tables: `images` and `class_statistics` of an output, for readers that know Delta.

Their logs are derived from the manifests of the finished runs, and never the truth. What is
written is the difference between the two, whatever it comes from: what one driver could not write
is made up for by the next.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import ErrorCode, InputError, PipelineError, StoreError
from pipeline.labelling.history import History
from pipeline.labelling.records import Manifest, TablePart
from pipeline.labelling.runs import TABLES, Run, run_folder
from pipeline.labelling.schema import CLASS_STATISTICS, IMAGES
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
    try:
        tables = _tables(run.storage, run.output)
        if not begin and not any(table.log.exists() for table in tables):
            return
        if not run.storage.conditional_put:
            raise StoreError(ErrorCode.FAILED, "the store has no put-if-absent, which it needs")
        published = _published(run, manifest)
        for table in tables:
            table.name_files_of(published, run.run_id)
    except PipelineError as error:
        _log.warning(
            "the Delta log of %s has no run %s: %s; the next run that is published adds it",
            *(run.output, run.run_id, error),
        )


def forget(storage: Storage, output: str, run_id: str) -> None:
    """Take a run out of the logs, before its files are removed.

    Args:
        storage: Reads and writes the output.
        output: URI of its folder.
        run_id: The name of the run.

    Raises:
        InputError: A log is damaged.
        StoreError: The store did not answer.
    """
    for table in _tables(storage, output):
        if table.log.exists():
            table.log.change(lambda files: Change(removed=_of_run(files, run_id)))


def contradictions(run: Run, manifest: Manifest) -> Iterator[str]:
    """Compare the logs, where there are some, with the manifest of a finished run.

    Args:
        run: The run.
        manifest: Its manifest.

    Yields:
        What a log says, and the manifest does not, or the other way round.

    Raises:
        InputError: A log is damaged.
        StoreError: The store did not answer.
    """
    for table in _tables(run.storage, run.output):
        if table.log.exists():
            named = set(_of_run(table.log.files(), run.run_id))
            published = set(table.files_of(run.run_id, manifest))
            for what, files in (("lacks", published - named), ("names", named - published)):
                for file in sorted(files, key=lambda one: one.path):
                    yield f"{table.name} {what} {file.path} of {file.num_bytes} bytes"


def strays(history: History) -> list[str]:
    """Name the runs in the logs that are none of the output: their files are gone, or will be.

    Args:
        history: The output's runs.

    Raises:
        InputError: A record is damaged.
        StoreError: The store did not answer.
    """
    known = {run.run_id for run in history.runs()}
    tables = _tables(history.storage, history.output)
    return [stray for table in tables for stray in table.strays(known)]


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

    def name_files_of(self, manifests: Mapping[str, Manifest], newest: str) -> None:
        """Name the files of published runs, and no others.

        Args:
            manifests: By run.
            newest: The run whose files may have been written anew.
        """
        self.log.change(lambda files: self._difference(files, manifests, newest))

    def files_of(self, run_id: str, manifest: Manifest) -> list[TableFile]:
        """Look up the files that a manifest names; those that are gone are left out."""
        parts = self._parts_of(manifest)
        sizes = answers_of(self._size_of, parts, _LOOKED_UP_AT_A_TIME)
        return [
            TableFile(self._path_of(part), run_id, size, part.num_rows)
            for part, size in zip(parts, sizes, strict=True)
            if size is not None
        ]

    def strays(self, known: Collection[str]) -> list[str]:
        """Name the runs in the log that are not known, or say why it can't be read."""
        try:
            found = {file.partition for file in self.log.files()} if self.log.exists() else set()
        except InputError as error:
            return [str(error)]
        return [f"{self.name}/_delta_log: run={one}" for one in sorted(found - set(known))]

    def _difference(
        self, files: Iterable[TableFile], manifests: Mapping[str, Manifest], newest: str
    ) -> Change:
        named: dict[str, set[TableFile]] = {}
        for file in files:
            named.setdefault(file.partition, set()).add(file)
        added: set[TableFile] = set()
        removed: set[TableFile] = set()
        for run_id, manifest in manifests.items():
            here = named.pop(run_id, set())
            if run_id != newest and self._paths_of(manifest) == {file.path for file in here}:
                continue
            there = set(self.files_of(run_id, manifest))
            paths = {file.path for file in there}
            added |= there - here
            removed |= {file for file in here if file.path not in paths}
        for run_id, here in named.items():
            # It is gone, or somebody has published it since the manifests were read.
            if not self.storage.exists(f"{run_folder(self.output, run_id)}/manifest.json"):
                removed |= here
        return Change(_sorted(added), _sorted(removed))

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


def _published(run: Run, manifest: Manifest) -> dict[str, Manifest]:
    """Read the manifests of all finished runs as they are now, and add one."""
    history = History.with_archive(run.storage, run.output)
    runs = history.runs()
    finished = [one for one, done in zip(runs, history.finished(runs), strict=True) if done]
    manifests = zip(finished, history.manifests(finished), strict=True)
    found = {one.run_id: its for one, its in manifests if its is not None}
    return {**found, run.run_id: manifest}


def _of_run(files: Iterable[TableFile], run_id: str) -> list[TableFile]:
    return [file for file in files if file.partition == run_id]


def _sorted(files: Iterable[TableFile]) -> list[TableFile]:
    return sorted(files, key=lambda file: file.path)
