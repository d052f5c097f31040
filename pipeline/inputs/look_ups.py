"""Looking up what a manifest names: the version and the size of objects, and of what is in tars."""

import re
from collections.abc import Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, islice

from pipeline.errors import InputError, Scope, SettingError, StoreError
from pipeline.inputs.manifests import Named
from pipeline.inputs.open_tables import OF_ITS_BYTES
from pipeline.inputs.open_tars import damaged, is_of_one_tar, refused, source_in
from pipeline.inputs.source import Source
from pipeline.inputs.tars import DamagedTarError, is_tar, read_members
from pipeline.store.cells import ParquetObject
from pipeline.store.entry import Entry
from pipeline.store.extent import Extent, container_of, key_inside, member_of, uri_inside
from pipeline.store.storage import Storage
from pipeline.store.uri import normalise_uri, other_spellings

_AT_A_TIME = 10_000
_BEFORE_A_PLACE = re.compile(r"\A\s+(?=s3[an]?://|gc?s://|az://|file:|/)")


class LookUps:
    """Makes sources of what a manifest names."""

    def __init__(self, storage: Storage, input_uri: str, threads: int) -> None:
        """Begin.

        Args:
            storage: The storage as it reads the input.
            input_uri: URI of the manifest, for messages.
            threads: Number of look-ups at a time.
        """
        self._storage = storage
        self._input = input_uri
        self._threads = threads

    def sources(self, named: Iterable[Named]) -> Iterator[Source]:
        """Take what is known, and look up what is not.

        Args:
            named: What the manifest names, in its order.

        Raises:
            InputError: A name is no place.
            StoreError: The store does not answer.
        """
        with ThreadPoolExecutor(self._threads) as pool:
            coming = (one._replace(uri=self._normalised(one.uri)) for one in named)
            # A pool holds all that it is given, so it is given some at a time.
            while some := list(islice(coming, _AT_A_TIME)):
                asked = [one.uri for one in some if not _is_known(one)]
                inside = self._inside(asked, pool)
                found = pool.map(partial(self._found, inside), asked)
                for one in some:
                    yield _known(one) if _is_known(one) else next(found)

    def _inside(self, uris: Iterable[str], pool: ThreadPoolExecutor) -> dict[str, Source]:
        """Find what is named of tars; each is opened once."""
        tars: dict[str, set[str]] = {}
        tables: dict[str, set[str]] = {}
        for uri in uris:
            if is_tar(tar := container_of(uri)):
                tars.setdefault(tar, set()).add(uri)
            elif (place := Extent.of_image({"uri": uri})).cell is not None:
                tables.setdefault(place.uri, set()).add(uri)
        found = chain(
            pool.map(self._in_tar, tars, tars.values()),
            pool.map(self._in_table, tables, tables.values()),
        )
        return {uri: source for some in found for uri, source in some.items()}

    def _in_table(self, table_uri: str, wanted: Iterable[str]) -> dict[str, Source]:
        """Look a Parquet file up for all of its rows, and say how large its images are."""
        entry = self._spelled(table_uri)
        if entry is None:
            return {uri: Source(_key_of(uri), uri, None, None) for uri in wanted}
        try:
            groups = ParquetObject(self._storage, entry).groups
        except StoreError as error:
            if error.code not in OF_ITS_BYTES and not is_of_one_tar(error):
                raise
            groups = []  # its rows will say why
        num_rows, num_bytes = (sum(column) for column in zip((0, 0), *groups, strict=True))
        mean = num_bytes // num_rows if num_rows else None
        places = ((uri, uri_inside(entry.uri, member_of(uri))) for uri in wanted)
        return {uri: Source(_key_of(own), own, entry.version, mean) for uri, own in places}

    def _in_tar(self, tar_uri: str, wanted: set[str]) -> dict[str, Source]:
        """Find what is wanted of one tar; where that can't be read, its rows say why."""
        found: dict[str, Source] = {}
        entry = self._stat_if_there(tar_uri)
        if entry is None:
            return found
        try:
            self._find(entry, wanted, found)
        except DamagedTarError as error:
            lost = partial(damaged, error=error)
        except StoreError as error:
            if not is_of_one_tar(error):
                raise
            lost = partial(refused, error=error)
        else:
            return found
        others = wanted - found.keys()
        return found | {uri: lost(Source(_key_of(uri), uri, entry.version, None)) for uri in others}

    def _find(self, entry: Entry, wanted: Container[str], found: dict[str, Source]) -> None:
        """Add what is wanted of a tar: the last member of each name, as tar would extract it."""
        tar = Source(_key_of(entry.uri), entry.uri, entry.version, entry.num_bytes)
        for member in read_members(self._storage, entry):
            source = source_in(tar, member)
            if member.is_whole and source.uri in wanted:
                found[source.uri] = source

    def _found(self, inside: Mapping[str, Source], uri: str) -> Source:
        return inside.get(uri) or self._look_up(uri)

    def _look_up(self, uri: str) -> Source:
        entry = self._spelled(uri)
        if entry is None:
            return Source(_key_of(uri), uri, None, None)
        return Source(_key_of(entry.uri), entry.uri, entry.version, entry.num_bytes)

    def _spelled(self, uri: str) -> Entry | None:
        """Look an object up, also by the other ways to write its name."""
        entry = self._stat_if_there(uri)
        for other in () if entry else other_spellings(uri):
            entry = entry or self._stat_if_there(other)
        return entry

    def _normalised(self, text: str) -> str:
        try:
            # Spaces before a scheme or a root are no part of a name; all others may be.
            return normalise_uri(_BEFORE_A_PLACE.sub("", text), "uri")
        except SettingError as error:
            raise InputError(f"manifest {self._input}: {error}") from error

    def _stat_if_there(self, uri: str) -> Entry | None:
        """Look an object up; None if there is none of this name, or it may not be read."""
        try:
            return self._storage.stat(uri)
        except StoreError as error:
            if error.refused and error.scope is not Scope.STORE:
                return None
            raise


def _is_known(named: Named) -> bool:
    """Return whether nothing is left to look up: of what is in a tar, also where."""
    in_tar = is_tar(container_of(named.uri))
    return named.version is not None and (named.offset is not None or not in_tar)


def _known(named: Named) -> Source:
    if named.offset is None:
        return Source(_key_of(named.uri), named.uri, named.version, named.num_bytes)
    key = key_inside(_key_of(container_of(named.uri)), member_of(named.uri))
    return Source(key, named.uri, named.version, named.num_bytes, offset=named.offset)


def _key_of(uri: str) -> str:
    """Name an image of a manifest: all of its place."""
    if Extent.of_image({"uri": uri}).cell is not None:
        uri = key_inside(container_of(uri), member_of(uri))
    return uri.partition("://")[2].lstrip("/")
