"""Clean: find runs whose every answer newer ones have replaced, or nobody ended; take them away.

In: the runs of an output. Out: those that nobody needs, and what an earlier removal has left. A run
goes as a whole or stays as a whole, so that what is there stays something that `verify` can prove.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ErrorCode, StoreError
from pipeline.labelling.archive import remove_archives
from pipeline.labelling.delta import forget
from pipeline.labelling.history import History
from pipeline.labelling.records import Manifest
from pipeline.labelling.repair import LEASE_S
from pipeline.labelling.runs import Run, is_left_over, run_folder
from pipeline.labelling.schema import IMAGES, OK
from pipeline.labelling.staging import Staging
from pipeline.settings.shared import RUN_ID_PATTERN
from pipeline.store.lock import Lock
from pipeline.store.storage import Storage

_PUBLISHED = ("masks", "images", "class_statistics")

_ROWS = pa.schema(
    [
        IMAGES.field("uri"),
        IMAGES.field("labelled_at"),
        ("labelled", pa.bool_()),
        ("run", pa.int32()),
        ("network", pa.string()),
    ]
)
# An image keeps its newest row and, where that has no mask, the newest one that has.
_NEEDED = """
    SELECT DISTINCT unnest([
        arg_max(run, (labelled_at, run)),
        arg_max(run, (labelled_at, run)) FILTER (labelled)
    ])
    FROM answers GROUP BY uri, network
"""


@dataclass(frozen=True)
class Removable:
    """What a run that can go holds.

    Attributes:
        run_id: The name of the run.
        reason: Why it can go.
        folders: URIs of all folders that it has in the output, its own last.
        identity: Of its input and network, by which it is locked; None of what is left of a run.
        unfinished: Whether it goes because nothing of it is published.
    """

    run_id: str
    reason: str
    folders: tuple[str, ...]
    identity: str | None = None
    unfinished: bool = False


def find_replaced(history: History, *, of_any_network: bool) -> list[Removable]:
    """Find the finished runs of which no image's answer is the newest one.

    Args:
        history: The output's runs so far.
        of_any_network: Whether another network's answers replace those of a run, too.

    Returns:
        The runs, oldest first; the newest finished one is never among them.

    Raises:
        InputError: A record or table is damaged.
    """
    runs = history.runs()
    pairs = list(zip(runs, history.manifests(runs), history.finished(runs), strict=True))
    finished = [(run, manifest) for run, manifest, done in pairs if manifest and done]
    needed = _needed(finished, of_any_network=of_any_network) | {len(finished) - 1}
    return [
        Removable(
            run.run_id,
            f"each of its {manifest.num_images:,} images has a newer answer",
            _folders(history.output, run.run_id),
            run.record.identity,
        )
        for index, (run, manifest) in enumerate(finished)
        if index not in needed
    ]


def find_unfinished(history: History, before: datetime) -> list[Removable]:
    """Find the runs that began before a time and have published nothing.

    Args:
        history: The output's runs so far.
        before: Younger ones may be at work, or be resumed.

    Returns:
        The runs, oldest first.

    Raises:
        InputError: A record is damaged.
    """
    old = [run for run in history.runs() if run.record.created_at < before]
    published = history.published(old)
    return [
        Removable(
            run.run_id,
            f"it began at {run.record.created_at:%Y-%m-%d %H:%M} and was never finished",
            _folders(history.output, run.run_id),
            run.record.identity,
            unfinished=True,
        )
        for run in old
        if run.run_id not in published
    ]


def find_left(storage: Storage, output: str) -> list[Removable]:
    """Find what is left of runs whose removal was cut off: their folder goes last of all.

    Args:
        storage: Reads and writes the output.
        output: URI of its folder.
    """
    return [
        Removable(name, "a removal was cut off", _folders(output, name))
        for name in storage.children(f"{output}/runs")
        if re.fullmatch(RUN_ID_PATTERN, name) and is_left_over(storage, output, name)
    ]


def size_of(storage: Storage, found: Removable) -> tuple[int, int]:
    """Count the files of a run, and their bytes, by listing them once."""
    files = num_bytes = 0
    for folder in found.folders:
        try:
            for entry in storage.walk(folder):
                files, num_bytes = files + 1, num_bytes + entry.num_bytes
        except StoreError as error:
            # A disk says so of a folder that there is not, a bucket shows nothing in it.
            if error.code is not ErrorCode.NOT_FOUND:
                raise
    return files, num_bytes


def remove_run(storage: Storage, output: str, found: Removable) -> bool:
    """Remove a run, or what is left of one. Cut off at any moment, nothing counts as a run.

    Args:
        storage: Reads and writes the output; it has to have the right to delete.
        output: URI of its folder.
        found: The run.

    Returns:
        Whether it is gone: one that has been finished since it was found stays.

    Raises:
        InputError: A Delta log is damaged.
        LockHeld: Somebody is at work on the run's input and network.
        StoreError: The store did not answer, or refuses.
    """
    if found.identity is None:
        # Since it was found, the name may have been used again.
        if is_left_over(storage, output, found.run_id):
            _remove_folders(storage, output, found)
        return True
    with Lock(storage, f"{output}/locks/{found.identity}", LEASE_S):
        manifest_uri = f"{run_folder(output, found.run_id)}/manifest.json"
        if found.unfinished and storage.exists(manifest_uri):
            return False
        # Archives and Delta logs hold what the run has said; after it, what was written meanwhile.
        forget(storage, output, found.run_id)
        remove_archives(storage, output)
        storage.remove(f"{run_folder(output, found.run_id)}/run.json")
        remove_archives(storage, output)
        _remove_folders(storage, output, found)
    return True


def _remove_folders(storage: Storage, output: str, found: Removable) -> None:
    *published, folder = found.folders
    forget(storage, output, found.run_id)
    for one in (*published, f"{folder}/plan"):
        storage.remove_folder(one)
    # A driver may have known the run before, and have added it meanwhile.
    forget(storage, output, found.run_id)
    # The rest of the run's folder tells that there is something left.
    storage.remove_folder(folder)


def _folders(output: str, run_id: str) -> tuple[str, ...]:
    published = (f"{output}/{table}/run={run_id}" for table in _PUBLISHED)
    return (*published, run_folder(output, run_id))


def _needed(finished: Sequence[tuple[Run, Manifest]], *, of_any_network: bool) -> set[int]:
    """Return the places of the runs that hold an image's newest answer, or its newest mask."""
    staging = Staging()
    try:
        tables = (
            rows
            for index, (run, manifest) in enumerate(finished)
            for rows in _rows(run, index, "" if of_any_network else manifest.fingerprint, manifest)
        )
        staging.fill("answers", _ROWS, tables)
        return {index for (index,) in staging.run(_NEEDED) if index is not None}
    finally:
        staging.close()


def _rows(run: Run, index: int, network: str, manifest: Manifest) -> Iterator[pa.Table]:
    for table in run.published(manifest, ["uri", "labelled_at", "status"]):
        number = table.num_rows
        columns = [
            table["uri"],
            table["labelled_at"],
            pc.equal(table["status"], OK),
            pa.array([index] * number, pa.int32()),
            pa.array([network] * number, pa.string()),
        ]
        yield pa.table(columns, schema=_ROWS)
