"""A bucket as a store, through s3fs; its errors are translated in `s3_errors.py`."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import aiohttp
import fsspec
from botocore.exceptions import BotoCoreError
from fsspec.asyn import sync

from pipeline.errors import ErrorCode, StoreError, UnsupportedError
from pipeline.store.access import S3Access
from pipeline.store.attempts import Asking, retrying
from pipeline.store.entry import WITHOUT_ETAG, Entry, changed_since, check_size
from pipeline.store.s3_answers import (
    check_answer,
    check_content,
    check_page,
    etag_of,
    is_version,
    refuse_page,
    version_of,
)
from pipeline.store.s3_errors import (
    CONFLICT,
    NOT_FOUND,
    NOT_IMPLEMENTED,
    PRECONDITION,
    S3_ERRORS,
    THROTTLED,
    UNSAID,
    BodyBrokeError,
    code_of,
    is_page,
    may_pass,
    raise_store_error,
)

# A body that comes slower than this over a whole window is asked for anew; so is an upload.
_SLOWEST_BYTES_PER_S = 16 << 10
_WINDOW_S = 20.0
_READ_BYTES = 1 << 20
# Of pauses that a store asks for, all threads make one of at least this length.
_THROTTLED_S = 1.0

_Answer = TypeVar("_Answer")


class S3:
    """A bucket, through s3fs; every request is limited in time as a whole, and retried here."""

    def __init__(
        self, endpoint_url: str | None, timeout_s: float, asking: Asking, access: S3Access
    ) -> None:
        """Open it.

        Args:
            endpoint_url: As the attribute of `Storage`.
            timeout_s: As the attribute of `Storage`.
            asking: How it is asked.
            access: How it is entered.
        """
        self._timeout_s = timeout_s
        self._asking = asking
        self._fs = fsspec.filesystem(
            "s3",
            endpoint_url=endpoint_url,
            use_listings_cache=False,
            config_kwargs={
                "connect_timeout": timeout_s,
                "read_timeout": timeout_s,
                "retries": {"mode": "standard", "total_max_attempts": 1},
                "max_pool_connections": 64,
            },
            **access.options(),
        )
        # botocore and s3fs retry a few times within seconds, which a burst of 503 outlives.
        self._fs.retries = 1

    def read(
        self, uri: str, version: str | None, max_bytes: int | None, num_bytes: int | None = None
    ) -> bytes:
        """As `Storage.read_version`."""
        tagged = version is not None and not version.startswith(WITHOUT_ETAG)
        condition = {"IfMatch": version} if tagged and version else {}

        def get() -> tuple[dict[str, Any], bytes]:
            answer, data = self._get(uri, condition, max_bytes)
            if version is None or is_version(answer, len(data), version):
                check_content(answer, data, num_bytes)
            return answer, data

        try:
            answer, data = self._ask("read", get)
        except S3_ERRORS as error:
            if code_of(error) in PRECONDITION:
                raise changed_since(uri, str(version), "another one") from error
            raise_store_error(error, uri)
        # Some stores ignore If-Match.
        if version is not None and not is_version(answer, len(data), version):
            raise changed_since(uri, version, version_of(answer, len(data)))
        return data

    def _get(
        self, uri: str, condition: dict[str, str], max_bytes: int | None
    ) -> tuple[dict[str, Any], bytes]:
        async def get() -> tuple[dict[str, Any], bytes]:
            # The public call_s3 waits for the answer alone; the body must be read in the loop.
            answer = await self._limited("get_object", 0, **_place(uri), **condition)
            async with answer["Body"] as body:
                check_answer(answer)
                check_size(uri, answer.get("ContentLength", 0), max_bytes)
                try:
                    window_s = min(_WINDOW_S, self._timeout_s)
                    data = await _read_all(body, uri, max_bytes, window_s)
                except (OSError, BotoCoreError, aiohttp.ClientError) as error:
                    raise BodyBrokeError(f"the answer broke off: {error!r}") from error
                return answer, data

        answered: tuple[dict[str, Any], bytes] = sync(self._fs.loop, get)
        return answered

    def write(self, uri: str, data: bytes) -> None:
        """As `Storage.write`."""
        self._put(uri, data, {})

    def create(self, uri: str, data: bytes) -> bool:
        """As `Storage.create`, but an answer that was lost counts as False."""
        return self._put(uri, data, {"IfNoneMatch": "*"})

    def _put(self, uri: str, data: bytes, condition: dict[str, str]) -> bool:
        def put() -> None:
            answer = self._call("put_object", len(data), **_place(uri), Body=data, **condition)
            # Whoever answers without an ETag may not have written anything.
            if not etag_of(answer) and not self._holds(uri, data):
                raise BodyBrokeError("the store says that it has written, and has not")

        try:
            self._ask("write", put)
        except S3_ERRORS as error:
            if condition and code_of(error) in PRECONDITION:
                return False
            if condition and code_of(error) in NOT_IMPLEMENTED:
                raise UnsupportedError(ErrorCode.TIMEOUT, f"{uri}: {error}") from error
            raise_store_error(error, uri)
        return True

    def _holds(self, uri: str, data: bytes) -> bool:
        try:
            return self._get(uri, {}, None)[1] == data
        except S3_ERRORS as error:
            if code_of(error) in NOT_FOUND:
                return False
            raise

    def stat(self, uri: str) -> Entry:
        """As `Storage.stat`."""
        place = _place(uri)
        if not place["Key"]:
            raise StoreError(ErrorCode.NOT_FOUND, f"{uri} is a bucket, not an object")
        try:
            found = self._ask("look", lambda: self._call("head_object", 0, **place))
        except S3_ERRORS as error:
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
            self._ask("read", lambda: self._call("get_object", 0, **_place(uri), Range="bytes=0-0"))
        except S3_ERRORS as error:
            raise_store_error(error, uri)

    def lists(self, uri: str) -> bool:
        """As `Storage.lists`."""
        return self._listed(uri) is not None

    def _listed(self, uri: str) -> Entry | None:
        place = _place(uri)
        page = self._page(uri, Bucket=place["Bucket"], Prefix=place["Key"], MaxKeys=1)
        for found in page.get("Contents", ()):
            if found["Key"] == place["Key"]:
                return _entry(place["Bucket"], found)
        return None

    def walk(self, folder_uri: str) -> Iterator[Entry]:
        """As `Storage.walk`."""
        bucket = _place(folder_uri)["Bucket"]
        for page in self._pages(folder_uri):
            for found in page.get("Contents", ()):
                if not found["Key"].endswith("/"):
                    yield _entry(bucket, found)

    def children(self, folder_uri: str) -> list[str]:
        """As `Storage.children`."""
        prefix = _place(folder_uri)["Key"]
        names: set[str] = set()
        try:
            for page in self._pages(folder_uri, Delimiter="/"):
                names |= {found["Prefix"] for found in page.get("CommonPrefixes", ())}
                names |= {found["Key"] for found in page.get("Contents", ())}
        except StoreError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
        return sorted(name.removeprefix(prefix).rstrip("/") for name in names - {prefix})

    def remove(self, uri: str) -> None:
        """As `Storage.remove`."""
        try:
            self._ask("write", lambda: self._call("delete_object", 0, **_place(uri)))
        except S3_ERRORS as error:
            raise_store_error(error, uri)

    def remove_leftovers(self, folder_uri: str) -> None:
        """A PUT that did not end leaves nothing behind."""

    def _pages(self, folder_uri: str, **options: str) -> Iterator[dict[str, Any]]:
        place = _place(folder_uri)
        prefix = place["Key"].lstrip("/")
        more: dict[str, str] = {}
        seen: set[str] = set()
        while True:
            page = self._page(folder_uri, Bucket=place["Bucket"], Prefix=prefix, **options, **more)
            yield page
            if not page.get("IsTruncated"):
                return
            token = page.get("NextContinuationToken", "")
            if not token or token in seen:
                message = f"{folder_uri}: the listing has more pages and does not say which"
                raise StoreError(ErrorCode.TIMEOUT, message)
            seen.add(token)
            more = {"ContinuationToken": token}

    def _page(self, uri: str, **arguments: Any) -> dict[str, Any]:
        def ask() -> dict[str, Any]:
            page = self._call("list_objects_v2", 0, **arguments)
            check_page(page)
            return page

        try:
            return self._ask("list", ask)
        except S3_ERRORS as error:
            raise_store_error(error, uri)

    def _ask(self, kind: str, request: Callable[[], _Answer]) -> _Answer:
        """Make a request, again and again while its failure may pass, and count it."""
        asking = self._asking

        def ask() -> _Answer:
            asking.requests.count(kind)
            return request()

        try:
            found: _Answer = retrying(asking.patience, asking.pace, may_pass, self._note)(ask)
        except S3_ERRORS as error:
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

    def _call(self, method: str, num_bytes: int, **arguments: Any) -> dict[str, Any]:
        """Make one request whose answer has no body of its own."""
        answer: dict[str, Any] = sync(self._fs.loop, self._limited, method, num_bytes, **arguments)
        check_answer(answer)
        return answer

    async def _limited(self, method: str, num_bytes: int, **arguments: Any) -> dict[str, Any]:
        """Limit a request as a whole: to connect, to send so many bytes, and to be answered."""
        seconds = 2 * self._timeout_s + num_bytes / _SLOWEST_BYTES_PER_S
        await self._fs.set_session()  # which takes its time, once in a process
        call = self._fs._call_s3(method, **arguments)  # noqa: SLF001 - call_s3 has no limit
        try:
            answer: dict[str, Any] = await asyncio.wait_for(call, seconds)
        except TimeoutError as error:
            raise BodyBrokeError(f"no whole answer within {seconds:.0f} s") from error
        return answer


async def _read_all(body: Any, uri: str, max_bytes: int | None, window_s: float) -> bytes:
    """Read a body piece by piece: one that drips is alive and never ends."""
    data = bytearray()
    since, before = time.monotonic(), 0
    while piece := await body.read(_READ_BYTES):
        data += piece
        check_size(uri, len(data), max_bytes)
        passed = time.monotonic() - since
        if passed > window_s:
            if len(data) - before < _SLOWEST_BYTES_PER_S * passed:
                raise BodyBrokeError(f"{len(data) - before} bytes in {passed:.0f} s")
            since, before = time.monotonic(), len(data)
    return bytes(data)


def _entry(bucket: str, found: dict[str, Any]) -> Entry:
    num_bytes = found.get("Size", 0)
    return Entry(f"s3://{bucket}/{found['Key']}", version_of(found, num_bytes), num_bytes)


def _place(uri: str) -> dict[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}
