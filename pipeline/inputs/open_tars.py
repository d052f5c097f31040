"""Opening the tars of an input: the images in them are sources, and what else is met is counted."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice

from pipeline.errors import ErrorCode, Scope, StoreError
from pipeline.inputs.kept_tars import MOST_IMAGES, Kept, KeptTars
from pipeline.inputs.source import Source, is_image, readable_name
from pipeline.inputs.tars import DamagedTarError, Member, is_tar, read_members
from pipeline.store.entry import Entry
from pipeline.store.extent import container_of, key_inside, member_name, uri_inside
from pipeline.store.in_flight import parts_of
from pipeline.store.storage import Storage

_log = logging.getLogger(__name__)

_AT_A_TIME = 100
# What may be true of one tar, and of no other.
_OF_ONE = (ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN, ErrorCode.CHANGED)


@dataclass
class _Part:
    """Some sources, and what was met on the way to them."""

    sources: list[Source] = field(default_factory=list)
    num_ignored: int = 0
    num_not_whole: int = 0
    num_opened: int = 0
    refusal: StoreError | None = None


class OpenTars:
    """Opens tars, several at a time; holds a hundred sources of each.

    Attributes:
        num_ignored: Members that are no images, by their names or their kinds.
        num_opened: Tars whose headers could be read, be it in part.
    """

    def __init__(self, storage: Storage, threads: int, kept: KeptTars | None = None) -> None:
        """Begin with none.

        Args:
            storage: The storage as it reads the input.
            threads: Number of tars that are read at a time.
            kept: What earlier runs have kept of tars; None keeps nothing.
        """
        self._kept = kept
        self._storage = storage.counting()
        self._threads = threads
        self.num_ignored = self.num_opened = self._num_not_whole = 0

    @property
    def num_reads(self) -> int:
        """Return how many requests the headers took."""
        return self._storage.requests["read"]

    def opened(self, found: Iterable[Source]) -> Iterator[Source]:
        """Put what lies in tars in their place, in no order.

        Args:
            found: The images and tars of a listing.

        Raises:
            StoreError: None of the tars can be read, or the store does not answer.
        """
        refusal: StoreError | None = None
        for part in parts_of(self._streams(found), self._threads):
            self.num_ignored += part.num_ignored
            self._num_not_whole += part.num_not_whole
            self.num_opened += part.num_opened
            refusal = refusal or part.refusal
            yield from part.sources
        if refusal and not self.num_opened:
            raise refusal
        if self._num_not_whole:
            _log.warning(
                "%d links and sparse files in tars have names of images and are left out",
                self._num_not_whole,
            )

    def _streams(self, found: Iterable[Source]) -> Iterator[Iterator[_Part]]:
        for are_tars, some in groupby(found, lambda source: is_tar(source.uri)):
            if are_tars:
                yield from map(self._parts, some)
                continue
            while sources := list(islice(some, _AT_A_TIME)):
                yield iter([_Part(sources)])

    def _parts(self, tar: Source) -> Iterator[_Part]:
        """Open a tar, or take what an earlier run has kept of it."""
        if tar.version is None or tar.refusal is not None:
            yield _Part([tar])
            return
        entry = Entry(tar.uri, tar.version, tar.num_bytes or 0)
        kept = self._kept.find(entry) if self._kept else None
        if kept is None:
            yield from self._read(tar, entry)
        else:
            sources = [source_in(tar, member) for member in kept.images]
            yield _Part(sources, kept.num_others, num_opened=1)

    def _read(self, tar: Source, entry: Entry) -> Iterator[_Part]:
        """Read a tar; one that can't be read, or not to its end, is a source itself."""
        read = _Read(tar)
        last = _Part(num_opened=1)
        try:
            for member in read_members(self._storage, entry):
                if read.add(member):
                    yield read.part()
        except StoreError as error:
            if not is_of_one_tar(error):
                raise
            last = _Part([refused(tar, error)], refusal=error)
        except DamagedTarError as error:
            last.sources.append(damaged(tar, error))
        else:
            self._note(entry, read)
        yield read.part()
        yield last

    def _note(self, entry: Entry, read: "_Read") -> None:
        if self._kept is not None and len(read.images) <= MOST_IMAGES:
            self._kept.note(entry, Kept(read.images, read.num_members - len(read.images)))


class _Read:
    """What was read of a tar.

    Attributes:
        images: The first ones, one more than are kept at most.
        num_members: All members so far.
    """

    def __init__(self, tar: Source) -> None:
        self._tar = tar
        self._some: list[Member] = []
        self.images: list[Member] = []
        self.num_members = 0

    def add(self, member: Member) -> bool:
        """Add a member; return whether there are enough for a part."""
        self._some.append(member)
        self.num_members += 1
        if _is_image(member) and len(self.images) <= MOST_IMAGES:
            self.images.append(member)
        return len(self._some) == _AT_A_TIME

    def part(self) -> _Part:
        """Make a part of what has come since the one before."""
        some, self._some = self._some, []
        sources = [source_in(self._tar, member) for member in some if _is_image(member)]
        num_not_whole = sum(is_image(one.name) and not one.is_whole for one in some)
        return _Part(sources, len(some) - len(sources), num_not_whole)


def _is_image(member: Member) -> bool:
    return member.is_whole and is_image(member.name)


def source_in(tar: Source, member: Member) -> Source:
    """Make a source of an image in a tar.

    Args:
        tar: The tar, with its key and version.
        member: The image.
    """
    name = member_name(readable_name(member.name))
    refusal = None if name == member_name(member.name) else ErrorCode.NAME_NOT_UTF8
    return Source(
        key_inside(tar.key, name),
        uri_inside(tar.uri, name),
        tar.version,
        member.num_bytes,
        refusal,
        offset=member.offset,
    )


def damaged(tar: Source, error: DamagedTarError) -> Source:
    """Make a source of what can't be read of a tar: a row that says so.

    Args:
        tar: The tar, or what it should hold.
        error: What is wrong with it.
    """
    place = container_of(tar.uri) or tar.uri
    reason = f"{place} is damaged {error}; the images before that are labelled. Write the tar anew"
    return Source(tar.key, tar.uri, tar.version, None, ErrorCode.CORRUPT, reason)


def refused(tar: Source, error: StoreError) -> Source:
    """Make a source of a tar that can't be read, or of what it should hold.

    Args:
        tar: The tar, or what it should hold.
        error: What the store said.
    """
    return Source(tar.key, tar.uri, None, None, error.code, error.message)


def is_of_one_tar(error: StoreError) -> bool:
    """Return whether a failure to read a tar may be true of it alone."""
    return error.code in _OF_ONE and error.scope is not Scope.STORE
