"""The history: the runs of an output, each object of which is read once, whoever asks."""

import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from typing import TypeVar

from pipeline.errors import InputError
from pipeline.labelling.archive import Archive, ArchivedRun, read_archive, write_archive
from pipeline.labelling.records import Manifest
from pipeline.labelling.runs import Run, find_run
from pipeline.store.storage import Storage
from pipeline.wording import count

_log = logging.getLogger(__name__)

_READ_THREADS = 16
# Runs that a message names.
_MAX_NAMED = 3
# What an output has from its first command on, and keeps when all of its runs are gone.
_OWN = frozenset({"runs", "locks", "history"})
_Answer = TypeVar("_Answer")


class History:
    """The runs of an output.

    Nothing is read before it is asked for. Records and manifests never change, and a finished
    run stays finished: such answers are kept. That there is no such thing is kept until
    `refresh`, which looks for what others have done meanwhile.
    """

    def __init__(self, storage: Storage, output: str, archive: Archive | None = None) -> None:
        """Name the output, without reading anything.

        Args:
            storage: Reads and writes the output.
            output: URI of its folder.
            archive: Answers for the runs that it names, as long as all of them are there.
        """
        self.storage = storage
        self.output = output
        self._archive = archive
        self._names: list[str] | None = None
        self._archived: dict[str, ArchivedRun] = {}
        self._runs: dict[str, Run | None] = {}
        self._manifests: dict[str, Manifest | None] = {}
        self._finished: dict[str, bool] = {}

    @classmethod
    def with_archive(cls, storage: Storage, output: str) -> "History":
        """Open the history by way of its newest archive, if there is one. Raises StoreError."""
        return cls(storage, output, read_archive(storage, output))

    @property
    def archive(self) -> Archive | None:
        """The archive, if all runs are there that it names. Raises StoreError."""
        if self._names is None:
            self.refresh()
        return self._archive

    def refresh(self) -> None:
        """List the runs again. Raises StoreError."""
        self._names = self.storage.children(f"{self.output}/runs")
        if self._archive is not None and not self._archive.run_ids <= set(self._names):
            _log.warning("runs are gone that the archive names, so every other one is read")
            self.leave_archive_aside()
        self._runs = {name: run for name, run in self._runs.items() if run}
        self._manifests = {name: found for name, found in self._manifests.items() if found}
        self._finished = {name: done for name, done in self._finished.items() if done}

        self._take_archive()

    def leave_archive_aside(self) -> None:
        """Read the runs themselves from now on."""
        self._archive = None
        self._archived = {}
        self._runs, self._manifests, self._finished = {}, {}, {}

    def keep_archive(self, least: int) -> None:
        """Archive the finished runs of which no archive knows, if they are many.

        Of a history that was just opened: `verify --repair` may have taken back since what an
        older one has read, and an archive would say it for good.

        Args:
            least: Of fewer runs nothing is written.

        Raises:
            InputError: A record or table is damaged.
            StoreError: The output can't be read or written.
        """
        archived = self.archive.run_ids if self.archive else frozenset()
        if len(self._names or ()) - len(archived) < least:
            return
        runs = [run for run in self.runs() if run.run_id not in archived]
        finished = [run for run, done in zip(runs, self.finished(runs), strict=True) if done]
        pairs = zip(finished, self.manifests(finished), strict=True)
        new = [(run, manifest) for run, manifest in pairs if manifest is not None]
        if len(new) >= least:
            write_archive(self.storage, self.output, self.archive, new)

    def _take_archive(self) -> None:
        for one in self._archive.runs if self._archive else ():
            run = Run(self.storage, self.output, one.record)
            self._archived[run.run_id] = one
            self._runs[run.run_id] = run
            self._finished[run.run_id] = True

    def runs(self) -> list[Run]:
        """Read the records of all runs that have a whole plan, oldest first.

        Raises:
            InputError: A record is damaged.
        """
        if self._names is None:
            self.refresh()
        found = self._read(self._runs, self._names or (), self._find)
        runs = [run for run in found if run is not None]
        return sorted(runs, key=lambda run: (run.record.created_at, run.run_id))

    def of_network(self, fingerprint: str) -> list[Run]:
        """Select the runs of one network, oldest first. Raises as `runs`."""
        return [run for run in self.runs() if run.record.network.fingerprint == fingerprint]

    def find(self, run_id: str) -> Run | None:
        """Look one run up by name, without the others; None if there is none with a whole plan.

        Raises:
            InputError: Its record is damaged.
        """
        if self._names is not None and run_id not in self._names:
            return None
        return self._read(self._runs, (run_id,), self._find)[0]

    def require(self, run_id: str | None) -> list[Run]:
        """List the runs that a reader asked for, oldest first.

        Args:
            run_id: Only this one; None lists all.

        Raises:
            InputError: There are none, or a record is damaged.
        """
        named = None if run_id is None else self.find(run_id)
        runs = self.runs() if run_id is None else [named] if named else []
        if not runs:
            what = "no run" if run_id is None else f"no run {run_id!r}"
            raise self._holds_no(what, run_id)
        return runs

    def require_output(self) -> None:
        """Refuse what is no output: of a mistyped one nobody shall hear that nothing is to do.

        Raises:
            InputError: `label` has never been at work there.
        """
        if self.storage.children(f"{self.output}/runs"):
            return
        if _OWN.isdisjoint(self.storage.children(self.output)):
            raise self._holds_no("no run", None)

    def _holds_no(self, what: str, run_id: str | None) -> InputError:
        return InputError(f"output={self.output!r} holds {what}; {self._remedy(run_id)}")

    def _remedy(self, run_id: str | None) -> str:
        there = self.storage.children(f"{self.output}/runs")
        begun = there if run_id is None else [name for name in there if name == run_id]
        if begun:
            return f"of {', '.join(begun[:_MAX_NAMED])} the plan was never finished; label again"
        if run_id is None or not there:
            return _what_is_there(self.storage.children(self.output))
        close = get_close_matches(run_id, there, _MAX_NAMED) or there[-_MAX_NAMED:]
        return f"it holds {count(len(there), 'run')}, such as {', '.join(close)}"

    def manifests(self, runs: Sequence[Run]) -> list[Manifest | None]:
        """Read the manifests of some runs; None for those that are not committed to the end.

        Raises:
            InputError: A manifest is damaged.
        """
        by_id = {run.run_id: run for run in runs}

        def ask(run_id: str) -> Manifest | None:
            archived = self._archived.get(run_id)
            try:
                if archived is not None:
                    return Manifest.model_validate_json(archived.manifest)
            except ValueError as error:
                _log.warning("the archive has no manifest of run %s: %s", run_id, error)
            return by_id[run_id].manifest()

        return self._read(self._manifests, by_id, ask)

    def published(self, runs: Sequence[Run]) -> frozenset[str]:
        """Name those of some runs that have a manifest. Raises as `manifests`."""
        others = [run for run in runs if run.run_id not in self._archived]
        pairs = zip(others, self.manifests(others), strict=True)
        there = {run.run_id for run, manifest in pairs if manifest is not None}
        return frozenset(run.run_id for run in runs if run.run_id in {*there, *self._archived})

    def finished(self, runs: Sequence[Run]) -> list[bool]:
        """Look up which of some runs are published to the end."""
        by_id = {run.run_id: run for run in runs}
        return self._read(self._finished, by_id, lambda run_id: by_id[run_id].finished())

    def orphans(self) -> list[str]:
        """Name the published tables of runs that have no record."""
        known = {run.run_id for run in self.runs()}
        return [
            f"{table}/{name}"
            for table in ("images", "class_statistics")
            for name in self.storage.children(f"{self.output}/{table}")
            if name.startswith("run=") and name.removeprefix("run=") not in known
        ]

    def _find(self, run_id: str) -> Run | None:
        return find_run(self.storage, self.output, run_id)

    @staticmethod
    def _read(
        known: dict[str, _Answer], names: Collection[str], ask: Callable[[str], _Answer]
    ) -> list[_Answer]:
        """Answer for every name, many at a time: an output may hold years of nights."""
        new = [name for name in names if name not in known]
        if new:
            with ThreadPoolExecutor(_READ_THREADS) as pool:
                known.update(zip(new, pool.map(ask, new), strict=True))
        return [known[name] for name in names]


def _what_is_there(names: Sequence[str]) -> str:
    """Say what a place without runs holds, and what to do."""
    if not names:
        return "nothing is there; is its name right?"
    if _OWN.isdisjoint(names):
        return f"it is no output of `label`, it has {names[0]}; is its name right?"
    return "`label` makes runs"
