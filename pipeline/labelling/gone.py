"""Gone: files that a run's records name and nobody finds, as where somebody has removed a mask.

In: a run. Out: each such file, and what has to go with it so that the same `label` command does its
shard again, or publishes again. Who removes masks may have meant it, so nobody looks for them but
where one run is named.
"""

from collections.abc import Iterator
from concurrent.futures import Executor
from typing import NamedTuple

from pipeline.errors import InputError
from pipeline.labelling.check_mask import place_of_mask
from pipeline.labelling.runs import Run
from pipeline.store.parquet import DAMAGE, read_parquet


class Gone(NamedTuple):
    """A file that is not there.

    Attributes:
        uri: Where it was.
        goes: What has to be removed, beside what says that the run is published.
    """

    uri: str
    goes: tuple[str, ...] = ()


def gone_files(run: Run, pool: Executor) -> Iterator[Gone]:
    """Find the files of a run that are gone.

    Args:
        run: Finished or not.
        pool: Asks for many at a time.

    Raises:
        StoreError: The store did not answer.
    """
    for shard in run.committed():
        yield from _masks(run, shard, pool)
    yield from _published(run)


def _masks(run: Run, shard: int, pool: Executor) -> Iterator[Gone]:
    uris = _named(run, shard)
    there = dict(zip(uris, pool.map(run.storage.exists, uris), strict=True))
    # Masks of a shard that lie in another tar would lie in two.
    others = [uri for uri in uris if there[uri]] if run.masks_in_tars else []
    goes = (run.commit_uri(shard), *others)
    yield from (Gone(uri, goes) for uri in uris if not there[uri])


def _named(run: Run, shard: int) -> list[str]:
    """List the files of the masks that a commit record names; none if it can't be read."""
    data = run.storage.find(run.commit_uri(shard))
    try:
        rows = read_parquet(data, ["mask_uri"]).to_pylist() if data is not None else []
    except DAMAGE:
        return []
    return list(dict.fromkeys(place_of_mask(run, row).uri for row in rows if row.get("mask_uri")))


def _published(run: Run) -> Iterator[Gone]:
    """Find what a published run lacks of its commit records and tables."""
    try:
        manifest = run.manifest()
    except InputError:
        return
    if manifest is None:
        # Nobody goes on with a run that says it is finished.
        yield from [Gone(run.manifest_uri)] if run.finished() else []
        return
    yield from (Gone(run.commit_uri(shard)) for shard in run.uncommitted())
    for part in (*manifest.images, *manifest.class_statistics):
        uri = f"{run.output}/{part.file}"
        if not run.storage.exists(uri):
            yield Gone(uri)
