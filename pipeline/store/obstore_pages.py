"""Listings through obstore, of the stores that nothing else here speaks to."""

from typing import TYPE_CHECKING, Protocol

import obstore
from obstore.exceptions import InvalidPathError

from pipeline.errors import ErrorCode, Scope, StoreError
from pipeline.store.bucket import Page, bucket_of, key_of
from pipeline.store.bucket_answers import version_of
from pipeline.store.bucket_errors import NOT_FOUND, RefusedError
from pipeline.store.entry import Entry
from pipeline.store.obstore_client import asked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from obstore import ListStream, ObjectMeta

    from pipeline.store.bucket import Answer
    from pipeline.store.obstore_client import Opened

_PAGE = 1000


class _Looks(Protocol):
    def head(self, uri: str) -> "Answer":
        """Look an object up."""


class ObstorePages:
    """A listing under way; one that breaks off goes on after the last name that it has shown."""

    # Without a limit on what lies directly in a folder they would cost more than they save.
    shows_folders = False

    def __init__(self, store: "Opened", looks: _Looks, folder_uri: str, *, is_deep: bool) -> None:
        """Begin it.

        Args:
            store: Is listed.
            looks: Looks up what may be a mark of a folder.
            folder_uri: What is listed.
            is_deep: Whether at any depth; else only what lies directly in the folder.
        """
        self._store = store
        self._looks = looks
        self._uri = folder_uri
        self._is_deep = is_deep
        self._folder = key_of(folder_uri).strip("/")
        self._last: str | None = None
        self._stream: ListStream[Sequence[ObjectMeta]] | None = None

    def next_page(self) -> Page:
        """Implement `Pages.next_page`."""
        try:
            return asked(self._deep if self._is_deep else self._flat)
        except StoreError:
            raise
        except OSError as error:
            self._stream = None
            if isinstance(error.__cause__, InvalidPathError):
                said = str(error.__cause__).partition("\n")[0]
                raise StoreError(
                    ErrorCode.FORBIDDEN,
                    f"{self._uri} can't be listed: {said}; keys with empty parts, `.`, `..` or "
                    "control characters are read in S3 only: rename it, or name the images in a "
                    "manifest",
                    Scope.BUCKET,
                ) from error
            raise

    def _deep(self) -> Page:
        if self._stream is None:
            self._stream = obstore.list(
                self._store, self._folder or None, offset=self._last, chunk_size=_PAGE
            )
        found: Sequence[ObjectMeta] = next(self._stream, ())
        if found:
            self._last = found[-1]["path"]
        entries = [one for one in map(self._entry, found) if not self._marks_a_folder(one)]
        return Page(entries, set(), is_last=len(found) < _PAGE)

    def _flat(self) -> Page:
        found = obstore.list_with_delimiter(self._store, self._folder or None)
        paths = {*found["common_prefixes"], *(one["path"] for one in found["objects"])}
        inside = f"{self._folder}/" if self._folder else ""
        names = {path.removeprefix(inside) for path in paths - {self._folder}}
        return Page([], names, is_last=True)

    def _entry(self, meta: "ObjectMeta") -> Entry:
        num_bytes = meta["size"]
        version = version_of({"ETag": meta["e_tag"]}, num_bytes)
        return Entry(
            f"{self._uri.partition('://')[0]}://{bucket_of(self._uri)}/{meta['path']}",
            version,
            num_bytes,
        )

    def _marks_a_folder(self, entry: Entry) -> bool:
        """Return whether it is an empty `name/`, which obstore shows as `name`."""
        if entry.num_bytes:
            return False
        try:
            self._looks.head(entry.uri)
        except RefusedError as error:
            if error.code in NOT_FOUND:
                return True
            raise
        return False
