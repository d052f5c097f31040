"""Which commit records stand, and in which version: what tables were made of can be told by it.

A run may have a million shards, of each of which 16 bytes are held.
"""

import hashlib
from collections.abc import Iterable

from pipeline.errors import ErrorCode, StoreError
from pipeline.labelling.runs import Run, shard_of
from pipeline.store.entry import Entry
from pipeline.store.in_flight import answers_of
from pipeline.store.storage import Storage, sha256_hex

_SIZE = 16
_LOOKS_IN_FLIGHT = 64


class Versions:
    """The versions of the commit records of some shards, as hashes."""

    def __init__(self, shards: range) -> None:
        """Begin without any.

        Args:
            shards: Consecutive ones.
        """
        self._shards = shards
        self._hashes = bytearray(_SIZE * len(shards))

    def see(self, shard: int, version: str) -> None:
        """Note the version of a shard's commit record."""
        start = _SIZE * self._shards.index(shard)
        found = hashlib.blake2b(version.encode(), digest_size=_SIZE).digest()
        self._hashes[start : start + _SIZE] = found

    def lacking(self) -> list[int]:
        """List the shards of which no version is known."""
        nothing = bytes(_SIZE)
        starts = range(0, len(self._hashes), _SIZE)
        pairs = zip(self._shards, starts, strict=True)
        return [shard for shard, at in pairs if self._hashes[at : at + _SIZE] == nothing]

    def digest(self, shards: range) -> str:
        """Hash the versions of some of the shards; it changes whenever one of them does."""
        first = _SIZE * (shards.start - self._shards.start)
        return sha256_hex(bytes(self._hashes[first : first + _SIZE * len(shards)]))


def listed_versions(run: Run) -> Versions:
    """List the commit records of a run, and ask by name for those that the listing leaves out.

    Raises:
        StoreError: The store did not answer.
    """
    found = Versions(run.shards)
    for entry in _listed(run):
        shard = shard_of(entry.uri.rpartition("/")[2])
        if shard in run.shards:
            found.see(shard, entry.version)
    _look(run, found, found.lacking())
    return found


def looked_up_versions(run: Run) -> Versions:
    """Ask by name for the commit record of every shard of a run, which may be a narrowed one.

    Raises:
        StoreError: The store did not answer.
    """
    found = Versions(run.shards)
    _look(run, found, run.shards)
    return found


def _listed(run: Run) -> Iterable[Entry]:
    # A disk has no such folder before the first commit.
    there = "commits" in run.storage.children(run.folder)
    return run.storage.walk(run.commits_folder) if there else ()


def _look(run: Run, found: Versions, shards: Iterable[int]) -> None:
    shards = list(shards)

    def look(shard: int) -> str | None:
        return _version(run.storage, run.commit_uri(shard))

    for shard, version in zip(shards, answers_of(look, shards, _LOOKS_IN_FLIGHT), strict=True):
        if version is not None:
            found.see(shard, version)


def _version(storage: Storage, uri: str) -> str | None:
    try:
        return storage.stat(uri).version
    except StoreError as error:
        if error.code is ErrorCode.NOT_FOUND:
            return None
        raise
