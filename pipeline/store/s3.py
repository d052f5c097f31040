"""A bucket as a store, through s3fs; its errors are translated here."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NoReturn
from urllib.parse import urlsplit

import aiohttp
import fsspec
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ProxyConnectionError,
)
from fsspec.asyn import sync
from tenacity import Retrying

from pipeline.errors import ErrorCode, StoreError, UnsupportedError
from pipeline.store.attempts import Tally, retrying
from pipeline.store.entry import Entry, changed_since, check_size

_NOT_FOUND = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}
_FORBIDDEN = {
    *("401", "403", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "ExpiredToken"),
    *("SignatureDoesNotMatch", "InvalidToken", "AccountProblem", "InvalidObjectState"),
}
_THROTTLED = {"429", "503", "SlowDown", "ServiceUnavailable", "TooManyRequests", "Throttling"}
_PRECONDITION = {"412", "PreconditionFailed"}
_NOT_IMPLEMENTED = {"501", "NotImplemented"}
_CONFLICT = {"409", "ConditionalRequestConflict"}
_NOBODY_THERE = (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError)


class S3:
    """A bucket, through s3fs; botocore retries the requests."""

    def __init__(
        self,
        endpoint_url: str | None,
        timeout_s: float,
        attempts: int,
        retries: Tally,
        requests: Tally,
    ) -> None:
        """Open it; arguments as the attributes of `Storage`."""
        self._attempts = attempts
        self._retries = retries
        self._requests = requests
        self._fs = fsspec.filesystem(
            "s3",
            endpoint_url=endpoint_url,
            use_listings_cache=False,
            config_kwargs={
                "connect_timeout": timeout_s,
                "read_timeout": timeout_s,
                "retries": {"mode": "standard", "total_max_attempts": attempts},
                "max_pool_connections": 64,
            },
        )
        # s3fs would retry on top of botocore.
        self._fs.retries = 1

    def read(self, uri: str, version: str | None, max_bytes: int | None) -> bytes:
        """As `Storage.read_version`."""
        condition = {} if version is None else {"IfMatch": version}
        try:
            # botocore retries until the headers are there; the body may still break off.
            for attempt in self._retrying("body", lambda error: isinstance(error, _BodyBroke)):
                with attempt:
                    found, data = self._get(uri, condition, max_bytes)
        except _S3_ERRORS as error:
            if _s3_code(error) in _PRECONDITION:
                raise changed_since(uri, str(version), "another one") from error
            _raise_s3(error, uri)
        if version not in (None, found):  # some stores ignore If-Match
            raise changed_since(uri, str(version), found)
        return data

    def _get(self, uri: str, condition: dict[str, str], max_bytes: int | None) -> tuple[str, bytes]:
        self._requests.count("read")

        async def get() -> tuple[str, bytes]:
            # The public call_s3 waits for the answer alone; the body must be read in the loop.
            answer = await self._fs._call_s3(  # noqa: SLF001
                "get_object", **_place(uri), **condition
            )
            self._count(answer)
            async with answer["Body"] as body:
                check_size(uri, answer["ContentLength"], max_bytes)
                try:
                    return answer["ETag"].strip('"'), await body.read()
                except (OSError, BotoCoreError, aiohttp.ClientError) as error:
                    raise _BodyBroke(f"the answer broke off: {error!r}") from error

        answered: tuple[str, bytes] = sync(self._fs.loop, get)
        return answered

    def write(self, uri: str, data: bytes) -> None:
        """As `Storage.write`."""
        self._put(uri, data, {})

    def create(self, uri: str, data: bytes) -> bool:
        """As `Storage.create`, but an answer that was lost counts as False."""
        return self._put(uri, data, {"IfNoneMatch": "*"})

    def _put(self, uri: str, data: bytes, condition: dict[str, str]) -> bool:
        try:
            # 409: another conditional write was under way; S3 asks to try again.
            for attempt in self._retrying("conflict", lambda error: _s3_code(error) in _CONFLICT):
                with attempt:
                    self._requests.count("write")
                    answer = self._fs.call_s3("put_object", **_place(uri), Body=data, **condition)
                    self._count(answer)
        except _S3_ERRORS as error:
            if condition and _s3_code(error) in _PRECONDITION:
                return False
            if condition and _s3_code(error) in _NOT_IMPLEMENTED:
                raise UnsupportedError(ErrorCode.TIMEOUT, f"{uri}: {error}") from error
            _raise_s3(error, uri)
        return True

    def stat(self, uri: str) -> Entry:
        """As `Storage.stat`."""
        place = _place(uri)
        if not place["Key"]:
            raise StoreError(ErrorCode.NOT_FOUND, f"{uri} is a bucket, not an object")
        self._requests.count("look")
        try:
            found = self._fs.call_s3("head_object", **place)
        except _S3_ERRORS as error:
            _raise_s3(error, uri)
        return Entry(uri, found["ETag"].strip('"'), found["ContentLength"])

    def walk(self, folder_uri: str) -> Iterator[Entry]:
        """As `Storage.walk`."""
        place = _place(folder_uri)
        for page in self._pages(folder_uri):
            for found in page.get("Contents", ()):
                uri = f"s3://{place['Bucket']}/{found['Key']}"
                if not uri.endswith("/"):
                    yield Entry(uri, found["ETag"].strip('"'), found["Size"])

    def children(self, folder_uri: str) -> list[str]:
        """As `Storage.children`."""
        prefix = _place(folder_uri)["Key"]
        names: list[str] = []
        try:
            for page in self._pages(folder_uri, Delimiter="/"):
                names += [found["Prefix"] for found in page.get("CommonPrefixes", ())]
                names += [found["Key"] for found in page.get("Contents", ())]
        except StoreError as error:
            if error.code is not ErrorCode.NOT_FOUND:
                raise
        return sorted(name.removeprefix(prefix).rstrip("/") for name in names if name != prefix)

    def remove(self, uri: str) -> None:
        """As `Storage.remove`."""
        self._requests.count("write")
        try:
            self._fs.call_s3("delete_object", **_place(uri))
        except _S3_ERRORS as error:
            _raise_s3(error, uri)

    def remove_leftovers(self, folder_uri: str) -> None:
        """A PUT that did not end leaves nothing behind."""

    def _pages(self, folder_uri: str, **options: str) -> Iterator[dict[str, Any]]:
        place = _place(folder_uri)
        prefix = place["Key"].lstrip("/")
        more: dict[str, str] = {}
        while True:
            self._requests.count("list")
            try:
                page = self._fs.call_s3(
                    "list_objects_v2", Bucket=place["Bucket"], Prefix=prefix, **options, **more
                )
            except _S3_ERRORS as error:
                _raise_s3(error, folder_uri)
            yield page
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _count(self, answer: dict[str, Any]) -> None:
        """Count what botocore has retried by itself."""
        if again := answer.get("ResponseMetadata", {}).get("RetryAttempts", 0):
            self._retries.count("request", again)

    def _retrying(self, kind: str, may_pass: Callable[[BaseException], bool]) -> Retrying:
        return retrying(self._attempts, may_pass, partial(self._retries.count, kind))


class _BodyBroke(OSError):
    """The headers came, the body did not."""


_S3_ERRORS = (OSError, ClientError, BotoCoreError)


def _place(uri: str) -> dict[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return {"Bucket": bucket, "Key": key}


def _s3_code(error: BaseException) -> str:
    source = _source(error)
    if isinstance(source, ClientError):
        answer = source.response
        code = str(answer.get("Error", {}).get("Code", ""))
        return code or str(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    return ""


def _raise_s3(error: BaseException, uri: str) -> NoReturn:
    code = _s3_code(error)
    if code in _NOT_FOUND or isinstance(error, FileNotFoundError):
        raise StoreError(ErrorCode.NOT_FOUND, f"{uri} does not exist") from error
    if code in _FORBIDDEN or isinstance(error, PermissionError):
        raise StoreError(ErrorCode.FORBIDDEN, f"{uri}: the store refuses: {error}") from error
    if type(error).__name__ == "NoCredentialsError":
        raise StoreError(ErrorCode.FORBIDDEN, f"{uri}: no AWS credentials found") from error
    if code in _THROTTLED:
        raise StoreError(ErrorCode.THROTTLED, f"{uri}: the store asks to slow down") from error
    reason = str(error) or type(error).__name__
    if _is_refusal(error):
        raise StoreError(
            ErrorCode.FORBIDDEN, f"{uri}: {reason}; check bucket, region, endpoint and credentials"
        ) from error
    source = _source(error)
    if isinstance(source, _NOBODY_THERE):
        reason = (
            f"nobody answers at {_server(source)} (check s3_endpoint_url, AWS_ENDPOINT_URL and the "
            "network)"
        )
    raise StoreError(ErrorCode.TIMEOUT, f"{uri}: no answer from the store: {reason}") from error


def _server(error: BotoCoreError) -> str:
    """Name whom a connection was tried to: the store, or the proxy on the way."""
    url = urlsplit(error.kwargs.get("endpoint_url") or error.kwargs.get("proxy_url") or "")
    return f"{url.scheme}://{url.netloc}"


def _source(error: BaseException) -> BaseException | None:
    """Return botocore's error: s3fs raises some of Python's own, and keeps it as the cause."""
    return error if isinstance(error, ClientError | BotoCoreError) else error.__cause__


def _is_refusal(error: BaseException) -> bool:
    """Whether asking again can't help: bad names, profiles and regions, and answers 3xx or 4xx."""
    source = _source(error)
    if isinstance(source, ClientError):
        status = source.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        return bool(300 <= status < 500)
    may_pass = (HTTPClientError, *_NOBODY_THERE)
    return isinstance(source, BotoCoreError) and not isinstance(source, may_pass)
