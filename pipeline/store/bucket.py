"""A bucket as a store: what is asked again, what settles an answer, and what is counted."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from itertools import count
from threading import Thread
from typing import Any, NamedTuple, Protocol, TypeVar

from pipeline.errors import ErrorCode, StoreError, UnsupportedError
from pipeline.store.attempts import Asking, retrying
from pipeline.store.bucket_answers import (
    check_content,
    etag_of,
    is_version,
    refuse_page,
    version_of,
)
from pipeline.store.bucket_errors import (
    BUCKET_ERRORS,
    CONFLICT,
    NO_OBJECT,
    NOT_FOUND,
    NOT_IMPLEMENTED,
    OUT_OF_RANGE,
    PRECONDITION,
    THROTTLED,
    UNSAID,
    BodyBrokeError,
    code_of,
    is_page,
    may_pass,
    raise_store_error,
)
from pipeline.store.entry import WITHOUT_ETAG, Entry, changed_since, check_part
from pipeline.store.in_flight import answers_of
from pipeline.store.merged import merged

# Of pauses that a store asks for, all threads make one of at least this length.
_THROTTLED_S = 1.0

_REMOVED_AT_A_TIME = 64
# A page takes a bucket a tenth of a second or two: of a large one the folders are listed at the
# same time. That costs a page for each, of which there are a thousand at most.
_PAGES_ALONE = 20
_LISTED_AT_A_TIME = 16
_ANSWERS_BELIEVED = 3

# Headers of an object, or its entry of a listing, by the names of boto: ETag, LastModified, ...
Answer = Mapping[str, Any]
_Answered = TypeVar("_Answered")


class Page(NamedTuple):
    """A part of a listing.

    Attributes:
        entries: The objects; of a listing that is not deep, those directly in the folder.
        names: Of a listing that is not deep, what lies directly in the folder.
        is_last: Whether no page follows.
        folders: Those of the names that have something below them.
    """

    entries: list[Entry]
    names: set[str]
    is_last: bool
    folders: frozenset[str] = frozenset()


def read_ahead(next_page: Callable[[], Page]) -> Iterator[Page]:
    """Ask for a page of a listing while the one before is worked on.

    That begins with the second page: many only look whether there is anything.

    Args:
        next_page: Asks for the next page; called in one thread at a time.
    """
    page = next_page()
    yield page
    if page.is_last:
        return
    following = _in_background(next_page)
    while not page.is_last:
        page = following.result()
        if not page.is_last:
            following = _in_background(next_page)
        yield page


def _in_background(next_page: Callable[[], Page]) -> "Future[Page]":
    """Ask in a thread that nobody waits for who has no more use for the page."""
    answered: Future[Page] = Future()

    def ask() -> None:
        try:
            answered.set_result(next_page())
        except BaseException as error:  # noqa: BLE001 - it is raised where the page is taken
            answered.set_exception(error)

    Thread(target=ask, name="listing").start()
    return answered


class Pages(Protocol):
    """A listing under way; `shows_folders` says whether pages have `folders`."""

    shows_folders: bool

    def next_page(self) -> Page:
        """Ask for the next page, or anew for one that failed."""


class Client(Protocol):
    """One request to a bucket each, tried once. Raises one of `BUCKET_ERRORS`, or StoreError."""

    def get(
        self,
        uri: str,
        if_match: str | None,
        max_bytes: int | None,
        span: range | None = None,
    ) -> tuple[Answer, bytes]:
        """Read an object of this ETag, if it is not larger than that; or a span of its bytes.

        Returns:
            The headers, of which ContentLength is the whole object's, and the bytes.
        """

    def put(self, uri: str, data: bytes, *, if_absent: bool) -> Answer:
        """Write an object, or only if there is none."""

    def head(self, uri: str) -> Answer:
        """Look an object up."""

    def get_a_byte(self, uri: str) -> None:
        """Read the first byte of an object, for what is said of a refusal."""

    def delete(self, uri: str) -> None:
        """Remove an object, if there is one."""

    def pages(self, folder_uri: str, *, is_deep: bool) -> Pages:
        """Begin a listing at any depth, or of what lies directly in a folder."""

    def listed(self, uri: str) -> Entry | None:
        """Return what the listing shows of an object."""


class Bucket:
    """A bucket, through a client; every request is retried here, and nowhere else."""

    def __init__(self, client: Client, asking: Asking) -> None:
        """Open it.

        Args:
            client: Makes the requests.
            asking: How it is asked.
        """
        self._client = client
        self._asking = asking

    def read(
        self, uri: str, version: str | None, max_bytes: int | None, num_bytes: int | None = None
    ) -> bytes:
        """Implement `Storage.read_version`."""
        if_match = _condition(version)
        answers = count(1)

        def get() -> tuple[Answer, bytes]:
            answer, data = self._client.get(uri, if_match, max_bytes)
            if version is None or is_version(answer, len(data), version):
                # A store may cut an answer and say so of none; when it says the same again and
                # again, it is the plan that has another size.
                whole = answer.get("ContentLength") == len(data)
                agreed = whole and next(answers) >= _ANSWERS_BELIEVED
                check_content(answer, data, None if agreed else num_bytes)
            return answer, data

        try:
            answer, data = self._ask("read", get)
        except BUCKET_ERRORS as error:
            if code_of(error) in PRECONDITION:
                raise changed_since(uri, str(version), "another one") from error
            raise_store_error(error, uri)
        # Some stores ignore If-Match.
        if version is not None and not is_version(answer, len(data), version):
            raise changed_since(uri, version, version_of(answer, len(data)))
        if version is not None and num_bytes not in (None, len(data)):
            planned = f"{version} of {num_bytes} bytes"
            raise changed_since(uri, planned, f"the same of {len(data)}")
        return data

    def read_span(self, uri: str, span: range, version: str | None = None) -> bytes:
        """Implement `Storage.read_extent`, and with a version as `Storage.read_version_of`."""

        def get() -> tuple[Answer, bytes]:
            answer, data = self._client.get(uri, _condition(version), None, span)
            check_content(answer, data, None)
            return answer, data

        try:
            answer, data = self._ask("read", get)
        except BUCKET_ERRORS as error:
            if code_of(error) in PRECONDITION:
                raise changed_since(uri, str(version), "another one") from error
            if code_of(error) not in OUT_OF_RANGE:
                raise_store_error(error, uri)
            answer, data = {}, b""
        if version is not None:
            size = answer.get("ContentLength", 0)
            if answer and not is_version(answer, size, version):
                raise changed_since(uri, version, version_of(answer, size))
            check_part(uri, span, data)
        return data

    def write(self, uri: str, data: bytes) -> None:
        """Implement `Storage.write`."""
        self._put(uri, data, if_absent=False)

    def create(self, uri: str, data: bytes) -> bool:
        """Implement `Storage.create`, but an answer that was lost counts as False."""
        return self._put(uri, data, if_absent=True)

    def _put(self, uri: str, data: bytes, *, if_absent: bool) -> bool:
        def put() -> None:
            answer = self._client.put(uri, data, if_absent=if_absent)
            # Whoever answers without an ETag may not have written anything.
            if not etag_of(answer) and not self._holds(uri, data):
                raise BodyBrokeError("the store says that it has written, and has not")

        try:
            self._ask("write", put)
        except BUCKET_ERRORS as error:
            if if_absent and code_of(error) in PRECONDITION:
                return False
            if if_absent and code_of(error) in NOT_IMPLEMENTED:
                raise UnsupportedError(ErrorCode.TIMEOUT, f"{uri}: {error}") from error
            raise_store_error(error, uri)
        return True

    def _holds(self, uri: str, data: bytes) -> bool:
        try:
            return self._client.get(uri, None, None)[1] == data
        except BUCKET_ERRORS as error:
            if code_of(error) in NOT_FOUND:
                return False
            raise

    def stat(self, uri: str) -> Entry:
        """Implement `Storage.stat`."""
        if not key_of(uri):
            raise StoreError(ErrorCode.NOT_FOUND, f"{uri} is a bucket, not an object")
        try:
            found = self._ask("look", lambda: self._client.head(uri))
        except BUCKET_ERRORS as error:
            if code_of(error) in UNSAID:
                self._say_why(uri)
            raise_store_error(error, uri)
        if "ContentLength" in found:
            num_bytes = found["ContentLength"]
            return Entry(uri, version_of(found, num_bytes), num_bytes)
        if (entry := self._listed(uri)) is None:
            raise StoreError(ErrorCode.NOT_FOUND, f"{uri} is in no listing")
        return entry

    def _say_why(self, uri: str) -> None:
        """Ask with GET, whose refusal has a body: bad credentials are no matter of one object."""
        try:
            self._ask("read", lambda: self._client.get_a_byte(uri))
        except BUCKET_ERRORS as error:
            raise_store_error(error, uri)

    def lists(self, uri: str) -> bool:
        """Implement `Storage.lists`."""
        return self._listed(uri) is not None

    def _listed(self, uri: str) -> Entry | None:
        try:
            return self._ask("list", lambda: self._client.listed(uri))
        except BUCKET_ERRORS as error:
            raise_store_error(error, uri)

    def walk(self, folder_uri: str) -> Iterator[Entry]:
        """Implement `Storage.walk`; folders of a large one are listed at the same time."""
        seen: set[str] = set()
        for number, page in enumerate(self._pages(folder_uri, is_deep=True)):
            nested = number == _PAGES_ALONE and any("/" in uri[len(folder_uri) :] for uri in seen)
            if nested and (flat := self._folders(folder_uri)) is not None:
                yield from self._walk_folders(folder_uri, flat, seen)
                return
            if number < _PAGES_ALONE:
                seen |= {entry.uri for entry in page.entries}
            yield from page.entries

    def _folders(self, folder_uri: str) -> Page | None:
        """List what lies directly in a folder, if that is several folders and fits on a page."""
        pages = self._client.pages(folder_uri, is_deep=False)
        if not pages.shows_folders:
            return None
        page = next(self._read_pages(pages, folder_uri))
        # A folder without a name would be listed as the bucket.
        whole = page.is_last and "" not in page.folders
        return page if whole and len(page.folders) > 1 else None

    def _walk_folders(self, folder_uri: str, flat: Page, seen: set[str]) -> Iterator[Entry]:
        """List the folders of a folder, but for what has been seen of them."""
        yield from (entry for entry in flat.entries if entry.uri not in seen)
        listings = [
            partial(self._pages, f"{folder_uri}{name}/", is_deep=True)
            for name in sorted(flat.folders)
        ]
        for page in merged(listings, _LISTED_AT_A_TIME):
            yield from (entry for entry in page.entries if entry.uri not in seen)

    def children(self, folder_uri: str) -> list[str]:
        """Implement `Storage.children`."""
        names: set[str] = set()
        try:
            for page in self._pages(folder_uri, is_deep=False):
                names |= page.names
        except StoreError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
        return sorted(names - {""})

    def _pages(self, folder_uri: str, *, is_deep: bool) -> Iterator[Page]:
        yield from self._read_pages(self._client.pages(folder_uri, is_deep=is_deep), folder_uri)

    def _read_pages(self, pages: Pages, folder_uri: str) -> Iterator[Page]:
        try:
            yield from read_ahead(lambda: self._ask("list", pages.next_page))
        except BUCKET_ERRORS as error:
            raise_store_error(error, folder_uri)

    def remove(self, uri: str) -> None:
        """Implement `Storage.remove`."""
        try:
            self._ask("write", lambda: self._client.delete(uri))
        except BUCKET_ERRORS as error:
            if code_of(error) not in NO_OBJECT:
                raise_store_error(error, uri)

    def remove_folder(self, folder_uri: str) -> None:
        """Implement `Storage.remove_folder`."""
        uris = (entry.uri for entry in self.walk(folder_uri))
        for _ in answers_of(self.remove, uris, _REMOVED_AT_A_TIME):
            pass

    def remove_leftovers(self, folder_uri: str) -> None:
        """A PUT that did not end leaves nothing behind."""

    def _ask(self, kind: str, request: Callable[[], _Answered]) -> _Answered:
        """Make a request, again and again while its failure may pass, and count it."""
        asking = self._asking

        def ask() -> _Answered:
            asking.requests.count(kind)
            return request()

        try:
            found: _Answered = retrying(asking.patience, asking.pace, may_pass, self._note)(ask)
        except BUCKET_ERRORS as error:
            if not asking.pace.heard:
                refuse_page(error)
            if code_of(error) and not may_pass(error):
                asking.pace.answered()
            raise
        asking.pace.answered()
        return found

    def _note(self, error: BaseException) -> None:
        code = code_of(error)
        self._asking.pace.heard |= bool(code) and not is_page(error)
        if code in THROTTLED:
            self._asking.pace.slow_down(_THROTTLED_S)
        kinds = {"conflict": code in CONFLICT, "body": isinstance(error, BodyBrokeError)}
        kind = next((kind for kind, applies in kinds.items() if applies), "request")
        self._asking.retries.count(kind)


def _condition(version: str | None) -> str | None:
    """Return the ETag that an object must have; None where the version is none, or takes any."""
    return version if version and not version.startswith(WITHOUT_ETAG) else None


def bucket_of(uri: str) -> str:
    """Return the bucket that a URI names."""
    return uri.partition("://")[2].partition("/")[0]


def key_of(uri: str) -> str:
    """Return the key in its bucket."""
    return uri.partition("://")[2].partition("/")[2]
