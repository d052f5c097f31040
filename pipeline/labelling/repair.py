"""Repair: find what a crash of the machine has cut off, and take it away.

In: the runs of an output. Out: what is provably torn, or gone where one run is named, and what has
to go with it so that the same `label` command does it again. What is whole and says something else
than it should is `verify`'s to find and a person's to judge.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.images.masks import UnreadableMask, decode_mask
from pipeline.labelling.archive import read_archive
from pipeline.labelling.delta import forget
from pipeline.labelling.gone import gone_files
from pipeline.labelling.mask_tar import TornTarError, spans_of, tar_uri
from pipeline.labelling.runs import Run, find_run, run_folder
from pipeline.store.entry import Entry
from pipeline.store.local import is_folder
from pipeline.store.lock import Lock
from pipeline.store.parquet import DAMAGE, read_parquet
from pipeline.store.storage import Storage

LEASE_S = 30.0
_GONE = "it is gone"
_IS_FOLDER = "a folder has its name; move it elsewhere, and repair again"
_PUBLISHED = ("masks", "images", "class_statistics")


@dataclass(frozen=True)
class Torn:
    """One damaged file, or one that is gone.

    Attributes:
        uri: The file.
        reason: What its reader says.
        goes: What has to be removed, in this order; empty where the rest of the run is worth more.
        content: What the file has to hold instead, if that is known.
    """

    uri: str
    reason: str
    goes: tuple[str, ...]
    content: bytes | None = None


def find_torn(
    storage: Storage, output: str, run_id: str, threads: int, *, named: bool = False
) -> list[Torn]:
    """Find the torn files of a run.

    Args:
        storage: Reads and writes the output.
        output: URI of its folder.
        run_id: The name of the run.
        threads: Files read at a time.
        named: Whether the user has named it: then files count, too, that it should have and that
            are not there.

    Raises:
        InputError: It was named, and there is no such run.
        StoreError: The store did not answer.
    """
    try:
        run = find_run(storage, output, run_id)
    except InputError as error:
        return [_torn_record(storage, output, run_id, error)]
    if run is None:
        _refuse_no_run(storage, output, run_id, named=named)
        return []
    for uri in _plan_uris(run):
        table, reason = _read(storage, uri)
        if table is None and (reason or named):
            return [_torn_plan(storage, output, run_id, f"{uri}: {reason or _GONE}")]
    with ThreadPoolExecutor(threads) as pool:
        torn = _torn_tars(run, pool) if run.masks_in_tars else _torn_masks(run, pool)
        found = [*torn, *_torn_commits(run), *_torn_tables(run)]
        return [*found, *_gone(run, pool)] if named else found


def _refuse_no_run(storage: Storage, output: str, run_id: str, *, named: bool) -> None:
    if named and not storage.children(run_folder(output, run_id)):
        raise InputError(f"output={output!r} holds no run {run_id!r}; `fcn runs OUTPUT` lists them")


@contextmanager
def unused(storage: Storage, output: str, run_id: str) -> Iterator[None]:
    """Hold the lock that `label` takes for a run, where its record says which that is.

    Args:
        storage: Reads and writes the output.
        output: URI of its folder.
        run_id: The name of the run.

    Raises:
        LockHeld: Somebody is at work on it.
    """
    try:
        run = find_run(storage, output, run_id)
    except InputError:
        run = None
    if run is None:  # nobody can be
        yield
        return
    with Lock(storage, f"{output}/locks/{run.record.identity}", LEASE_S):
        yield


def restore(storage: Storage, found: Sequence[Torn]) -> None:
    """Write anew what is known, in one step: at every moment there is a file, torn or whole.

    Args:
        storage: Reads and writes the output.
        found: Torn files of one run.
    """
    for torn in found:
        if torn.content is not None:
            storage.write(torn.uri, torn.content)


def remove(storage: Storage, output: str, run_id: str, found: Sequence[Torn]) -> int:
    """Remove what has to go.

    Args:
        storage: Reads and writes the output.
        output: URI of its folder.
        run_id: The name of the run.
        found: Its torn files.

    Returns:
        How many files were removed.

    Raises:
        InputError: A Delta log is damaged.
    """
    # What says that the run is done goes first, and what others name goes last.
    gone = dict.fromkeys(uri for torn in found for uri in torn.goes)
    unpublished = any(uri.endswith("/manifest.json") for uri in gone)
    # Whoever finds the tables by a Delta log shall not miss what it names, nor if a driver that
    # knew the run has added it meanwhile.
    if unpublished:
        forget(storage, output, run_id)
    for uri in sorted(gone, key=_order):
        storage.remove(uri)
    if unpublished:
        forget(storage, output, run_id)
    return len(gone)


def _order(uri: str) -> int:
    endings = ("/_SUCCESS", "/manifest.json", "/run.json")
    return next((rank for rank, end in enumerate(endings) if uri.endswith(end)), len(endings))


def _unfinish(run: Run) -> tuple[str, ...]:
    """Name what says that a run is published: without it, the same command resumes it."""
    return tuple(uri for uri in (run.success_uri, run.manifest_uri) if run.storage.exists(uri))


def _torn_record(storage: Storage, output: str, run_id: str, error: InputError) -> Torn:
    """Judge a run whose record is torn: an archive may hold it, and else all of the run has to go.

    Without it nobody knows what the classes of the masks are, and no command reads the output.
    """
    uri = f"{run_folder(output, run_id)}/run.json"
    reason = str(error).partition("; ")[0]
    archive = read_archive(storage, output)
    for one in archive.runs if archive else ():
        if one.record.run_id == run_id:
            content = one.record.model_dump_json(indent=1).encode()
            return Torn(uri, f"{reason}; an archive in history/ has it", (), content)
    return _all_of(storage, output, run_id, f"{reason}; if there is a copy, put it back")


def _torn_plan(storage: Storage, output: str, run_id: str, reason: str) -> Torn:
    """Judge a run whose plan is torn: unfinished, it can't go on, and has to go."""
    folder = run_folder(output, run_id)
    if storage.exists(f"{folder}/manifest.json"):
        return Torn(folder, f"{reason}; its masks and tables are published and stay", ())
    return _all_of(storage, output, run_id, reason)


def _all_of(storage: Storage, output: str, run_id: str, reason: str) -> Torn:
    folder = run_folder(output, run_id)
    places = [folder, *(f"{output}/{name}/run={run_id}" for name in _PUBLISHED)]
    entries = [entry.uri for place in places for entry in _walk(storage, place)]
    return Torn(folder, f"{reason}; the run can't go on, all of it goes", tuple(entries))


def _walk(storage: Storage, folder: str) -> Iterator[Entry]:
    return storage.walk(folder) if storage.children(folder) else iter(())


def _plan_uris(run: Run) -> list[str]:
    return [f"{run.folder}/plan/{part.file}" for part in run.record.plan]


def _torn_masks(run: Run, pool: ThreadPoolExecutor) -> Iterator[Torn]:
    """Find masks that can't be read: with each goes the commit of its shard, which names it."""
    commits = set(run.committed())

    def look(row: dict[str, Any]) -> Torn | None:
        uri = f"{run.masks_folder}/{row['mask_key']}"
        data = run.storage.find(uri)
        reason = "" if data is None else _torn(data)
        if not reason:
            return None
        commit = [run.commit_uri(row["shard"])] if row["shard"] in commits else []
        return Torn(uri, reason, (*_unfinish(run), *commit, uri))

    for uri in _plan_uris(run):
        table, _ = _read(run.storage, uri)
        rows = table.select(["shard", "mask_key"]).to_pylist() if table is not None else ()
        yield from (torn for torn in pool.map(look, rows) if torn is not None)


def _torn_tars(run: Run, pool: ThreadPoolExecutor) -> Iterator[Torn]:
    """Find tars that can't be read: with each go all of its shard, and the commit, as above."""
    commits = set(run.committed())

    def look(shard: int) -> list[Torn]:
        found = _tars(run, shard)
        if not any(reason for _, reason in found):
            return []
        commit = [run.commit_uri(shard)] if shard in commits else []
        goes = (*_unfinish(run), *commit, *(uri for uri, _ in found))
        return [Torn(uri, reason, goes) for uri, reason in found if reason]

    for part in run.record.plan:
        shards = range(part.first_shard, part.first_shard + len(part.num_images))
        for torn in pool.map(look, shards):
            yield from torn


def _tars(run: Run, shard: int) -> list[tuple[str, str]]:
    """Read the tars of a shard; each with what its reader says, if it can't be read."""
    found: list[tuple[str, str]] = []
    while True:
        uri = tar_uri(run.masks_folder, shard, len(found))
        data = run.storage.find(uri)
        if data is None:
            return found
        found.append((uri, _damage(data)))


def _damage(tar: bytes) -> str:
    """Say why a tar, or the first of its masks that is torn, can't be read."""
    try:
        masks = [tar[span.start : span.stop] for span in spans_of(tar).values()]
    except TornTarError as error:
        return str(error)
    return next(filter(None, map(_torn, masks)), "")


def _torn(mask: bytes) -> str:
    try:
        decode_mask(mask)
    except UnreadableMask as error:
        return str(error)
    except ValueError:
        pass  # whole, and something else
    return ""


def _torn_commits(run: Run) -> Iterator[Torn]:
    for shard in run.committed():
        uri = run.commit_uri(shard)
        _, reason = _read(run.storage, uri)
        if reason:
            yield Torn(uri, reason, (*_unfinish(run), uri))
        elif is_folder(uri):  # which a listing shows as if the shard were done
            yield Torn(uri, _IS_FOLDER, ())


def _gone(run: Run, pool: ThreadPoolExecutor) -> Iterator[Torn]:
    unfinish = _unfinish(run)
    for file in gone_files(run, pool):
        if is_folder(file.uri):
            yield Torn(file.uri, _IS_FOLDER, ())
        else:
            yield Torn(file.uri, _GONE, (*unfinish, *file.goes))


def _torn_tables(run: Run) -> Iterator[Torn]:
    """Find a manifest or tables that can't be read; publishing writes all of them again."""
    try:
        manifest = run.manifest()
    except InputError as error:
        yield Torn(run.manifest_uri, str(error).partition("; ")[0], _unfinish(run))
        return
    if manifest is None:
        return
    for part in (*manifest.images, *manifest.class_statistics):
        uri = f"{run.output}/{part.file}"
        _, reason = _read(run.storage, uri)
        if reason:
            yield Torn(uri, reason, (*_unfinish(run), uri))


def _read(storage: Storage, uri: str) -> tuple[pa.Table | None, str]:
    """Read a Parquet file, or say why it can't be read; one that is not there is not torn."""
    data = storage.find(uri)
    if data is None:
        return None, ""
    try:
        return read_parquet(data), ""
    except DAMAGE as error:
        return None, str(error).partition("\n")[0] or type(error).__name__
