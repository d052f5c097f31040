"""The one seam to local disks and object stores; everything goes through fsspec.

URIs are `s3://bucket/key` or `file:///absolute/path`, never percent-encoded. Each failure of a
library is translated here, once, into `StoreError` with the code that an image would get for it.
"""

import errno
import glob
import hashlib
import os
import re
import stat
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, Protocol
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
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from pipeline.errors import ErrorCode, SettingError, StoreError, UnsupportedError
from pipeline.masking import holds_secret

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


@dataclass(frozen=True)
class Entry:
    """One stored object as a listing shows it.

    `version` changes whenever the content does: the ETag in a bucket, mtime in ns and size on a
    disk. `num_bytes` is its size.
    """

    uri: str
    version: str
    num_bytes: int


@dataclass(frozen=True)
class Storage:
    """Reads and writes by URI; cheap to build, and travels to workers.

    Attributes:
        s3_endpoint_url: Where S3 is, if not at AWS.
        timeout_s: How long one connection or read may stay silent, in seconds.
        attempts: How often a request is tried before it has failed.
        retries: Requests that were made again in this process, by kind; `counting` starts anew.
        conditional_put: Whether the store honours `If-None-Match`; where it does not, `create`
            looks before it writes, and only one writer is safe.
    """

    s3_endpoint_url: str | None = None
    timeout_s: float = 60.0
    attempts: int = 5
    conditional_put: bool = True
    retries: Counter[str] = field(default_factory=Counter, compare=False, repr=False)

    def counting(self) -> "Storage":
        """Give the same storage with a count of its own of the requests that it makes again."""
        return replace(self, retries=Counter())

    def read(self, uri: str) -> bytes:
        """Read a whole object. Raises StoreError."""
        return self._backend(uri).read(uri, None, None)

    def read_version(self, uri: str, version: str | None, max_bytes: int) -> bytes:
        """Read an object if it still has this version.

        Args:
            uri: The object.
            version: `Entry.version` as it was listed; None takes any.
            max_bytes: Of a larger object nothing is read.

        Raises:
            StoreError: With code `changed` if the object has another version by now, with
                `too_many_bytes` if it is larger than the limit.
        """
        return self._backend(uri).read(uri, version, max_bytes)

    def write(self, uri: str, data: bytes) -> None:
        """Write an object whole or not at all; replaces what is there. Raises StoreError."""
        self._backend(uri).write(uri, data)

    def create(self, uri: str, data: bytes) -> bool:
        """Write an object if there is none: put-if-absent.

        A lost answer is settled by the bytes: whoever finds its own there has succeeded.

        Returns:
            Whether the object holds `data` now. False: somebody else's is there, untouched.

        Raises:
            StoreError: The store did not answer.
        """
        backend = self._backend(uri)
        if not self.conditional_put and self.exists(uri):
            return self.read(uri) == data
        if not self.conditional_put:
            backend.write(uri, data)
            return True
        return backend.create(uri, data) or self.read(uri) == data

    def stat(self, uri: str) -> Entry:
        """Look an object up. Raises StoreError, with code `not_found` if there is none."""
        return self._backend(uri).stat(uri)

    def exists(self, uri: str) -> bool:
        """Whether there is an object of this name. Raises StoreError."""
        try:
            self.stat(uri)
        except StoreError as error:
            if error.code is ErrorCode.NOT_FOUND:
                return False
            raise
        return True

    def walk(self, folder_uri: str) -> Iterator[Entry]:
        """List all objects below a folder, at any depth, in no order. Raises StoreError."""
        return self._backend(folder_uri).walk(as_folder(folder_uri))

    def children(self, folder_uri: str) -> list[str]:
        """List the names directly below a folder, sorted; none if there is no such folder."""
        return self._backend(folder_uri).children(as_folder(folder_uri))

    def remove_leftovers(self, folder_uri: str) -> None:
        """Remove what writes of killed processes left below a folder; a bucket has none."""
        self._backend(folder_uri).remove_leftovers(folder_uri)

    def _backend(self, uri: str) -> "_Backend":
        if uri.startswith("s3://"):
            return _S3(self)
        return _Local()


def normalise_uri(text: str, field: str) -> str:
    """Bring what a user typed into the form of all URIs here.

    Args:
        text: A path, `file://...` or `s3://bucket/...`.
        field: The setting's name, for the message.

    Raises:
        SettingError: The text is empty, holds a secret, or the scheme is another one.
    """
    if not text.strip():
        raise SettingError(f"{field} is empty; give a local path, file:// or s3://")
    if "\0" in text or not _is_utf8(text):
        raise SettingError(f"{field}={text!r} is no text in UTF-8")
    if holds_secret(text):
        raise SettingError(
            f"{field}={text!r} holds a password or a signature, which would stand in logs and "
            "tables; give the plain s3:// name, and credentials the way AWS tools find them"
        )
    if text.startswith("s3://"):
        bucket, _, key = text.removeprefix("s3://").partition("/")
        if not bucket:
            raise SettingError(f"{field}={text!r} names no bucket; write s3://BUCKET/PREFIX")
        return f"s3://{bucket}/{key}".rstrip("/")
    scheme, separator, path = text.partition("://")
    if separator and scheme != "file":
        raise SettingError(
            f"{field}={text!r}: scheme {scheme!r} is not supported; "
            "use a local path, file:// or s3://"
        )
    return "file://" + os.path.abspath(os.path.expanduser(path if separator else text))


def as_folder(uri: str) -> str:
    """Give a URI the one slash at its end that makes it the prefix of what lies below."""
    return uri if uri.endswith("/") and not uri.endswith("://") else f"{uri}/"


def local_path(uri: str) -> str:
    """The path of a `file://` URI."""
    return uri.removeprefix("file://")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def sha256_hex(data: bytes) -> str:
    """SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def has_wildcard(uri: str) -> bool:
    """Whether the text is a glob pattern."""
    return glob.has_magic(uri)


class _Backend(Protocol):
    def read(self, uri: str, version: str | None, max_bytes: int | None) -> bytes: ...
    def write(self, uri: str, data: bytes) -> None: ...
    def create(self, uri: str, data: bytes) -> bool: ...
    def stat(self, uri: str) -> Entry: ...
    def walk(self, folder_uri: str) -> Iterator[Entry]: ...
    def children(self, folder_uri: str) -> list[str]: ...
    def remove_leftovers(self, folder_uri: str) -> None: ...


_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)

# A write goes to such a name first, which tells leftovers of killed processes from masks.
_TEMPORARY = ".fcn-tmp-"
_LEFTOVER = re.compile(r"\.fcn-tmp-[0-9a-f]{12}")
_NOWHERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


class _Local:
    """A disk. Link and rename make a file appear whole, or not at all."""

    def read(self, uri: str, version: str | None, max_bytes: int | None) -> bytes:
        path = local_path(uri)
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise StoreError(ErrorCode.NOT_FOUND, f"{uri} is not a regular file")
            with fsspec.filesystem("file").open(path, "rb") as file:
                _check_size(uri, os.fstat(file.fileno()).st_size, max_bytes)
                before = _local_version(os.fstat(file.fileno()))
                data: bytes = file.read()
                after = _local_version(os.fstat(file.fileno()))
        except OSError as error:
            _raise_local(error, uri)
        if version is not None and not version == before == after:
            raise _changed(uri, version, after)
        return data

    def write(self, uri: str, data: bytes) -> None:
        path = local_path(uri)
        try:
            os.replace(_write_temporary(path, data), path)
        except OSError as error:
            _raise_local(error, uri)

    def create(self, uri: str, data: bytes) -> bool:
        path = local_path(uri)
        try:
            if os.path.lexists(path):
                return False
            temporary = _write_temporary(path, data)
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno in _NO_LINKS:
                    raise UnsupportedError(
                        ErrorCode.TIMEOUT, f"{uri}: this disk has no hard links"
                    ) from error
                raise
            finally:
                os.unlink(temporary)
        except OSError as error:
            _raise_local(error, uri)
        return True

    def stat(self, uri: str) -> Entry:
        try:
            found = os.stat(local_path(uri))
        except OSError as error:
            _raise_local(error, uri)
        if not stat.S_ISREG(found.st_mode):
            raise StoreError(ErrorCode.NOT_FOUND, f"{uri} is not a regular file")
        return Entry(uri, _local_version(found), found.st_size)

    def walk(self, folder_uri: str) -> Iterator[Entry]:
        def refuse(error: OSError) -> NoReturn:
            _raise_local(error, f"file://{error.filename}")

        for folder, _, names in os.walk(local_path(folder_uri), onerror=refuse):
            for name in names:
                path = os.path.join(folder, name)
                try:
                    found = os.stat(path)
                except OSError as error:
                    if error.errno in _NOWHERE:
                        continue  # removed since, or a link to nowhere
                    _raise_local(error, f"file://{path}")
                if stat.S_ISREG(found.st_mode):
                    yield Entry(f"file://{path}", _local_version(found), found.st_size)

    def children(self, folder_uri: str) -> list[str]:
        try:
            return sorted(name for name in os.listdir(local_path(folder_uri)))
        except FileNotFoundError:
            return []
        except OSError as error:
            _raise_local(error, folder_uri)

    def remove_leftovers(self, folder_uri: str) -> None:
        for folder, _, names in os.walk(local_path(folder_uri)):
            for name in names:
                if _LEFTOVER.fullmatch(name):
                    self._remove(os.path.join(folder, name))

    def _remove(self, path: str) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass  # another process removes leftovers too
        except OSError as error:
            _raise_local(error, f"file://{path}")


class _S3:
    """A bucket, through s3fs; botocore retries the requests."""

    def __init__(self, options: Storage) -> None:
        self._attempts = options.attempts
        self._retries = options.retries
        self._fs = fsspec.filesystem(
            "s3",
            endpoint_url=options.s3_endpoint_url,
            use_listings_cache=False,
            config_kwargs={
                "connect_timeout": options.timeout_s,
                "read_timeout": options.timeout_s,
                "retries": {"mode": "standard", "total_max_attempts": options.attempts},
                "max_pool_connections": 64,
            },
        )
        # s3fs would retry on top of botocore.
        self._fs.retries = 1

    def read(self, uri: str, version: str | None, max_bytes: int | None) -> bytes:
        condition = {} if version is None else {"IfMatch": version}
        try:
            # botocore retries until the headers are there; the body may still break off.
            for attempt in self._retrying("body", lambda error: isinstance(error, _BodyBroke)):
                with attempt:
                    found, data = self._get(uri, condition, max_bytes)
        except _S3_ERRORS as error:
            if _s3_code(error) in _PRECONDITION:
                raise _changed(uri, str(version), "another one") from error
            _raise_s3(error, uri)
        if version not in (None, found):  # some stores ignore If-Match
            raise _changed(uri, str(version), found)
        return data

    def _get(self, uri: str, condition: dict[str, str], max_bytes: int | None) -> tuple[str, bytes]:
        async def get() -> tuple[str, bytes]:
            # The public call_s3 waits for the answer alone; the body must be read in the loop.
            answer = await self._fs._call_s3(  # noqa: SLF001
                "get_object", **_place(uri), **condition
            )
            self._count(answer)
            async with answer["Body"] as body:
                _check_size(uri, answer["ContentLength"], max_bytes)
                try:
                    return answer["ETag"].strip('"'), await body.read()
                except (OSError, BotoCoreError, aiohttp.ClientError) as error:
                    raise _BodyBroke(f"the answer broke off: {error!r}") from error

        answered: tuple[str, bytes] = sync(self._fs.loop, get)
        return answered

    def write(self, uri: str, data: bytes) -> None:
        self._put(uri, data, {})

    def create(self, uri: str, data: bytes) -> bool:
        return self._put(uri, data, {"IfNoneMatch": "*"})

    def _put(self, uri: str, data: bytes, condition: dict[str, str]) -> bool:
        try:
            # 409: another conditional write was under way; S3 asks to try again.
            for attempt in self._retrying("conflict", lambda error: _s3_code(error) in _CONFLICT):
                with attempt:
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
        place = _place(uri)
        if not place["Key"]:
            raise StoreError(ErrorCode.NOT_FOUND, f"{uri} is a bucket, not an object")
        try:
            found = self._fs.call_s3("head_object", **place)
        except _S3_ERRORS as error:
            _raise_s3(error, uri)
        return Entry(uri, found["ETag"].strip('"'), found["ContentLength"])

    def walk(self, folder_uri: str) -> Iterator[Entry]:
        place = _place(folder_uri)
        for page in self._pages(folder_uri):
            for found in page.get("Contents", ()):
                uri = f"s3://{place['Bucket']}/{found['Key']}"
                if not uri.endswith("/"):
                    yield Entry(uri, found["ETag"].strip('"'), found["Size"])

    def children(self, folder_uri: str) -> list[str]:
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

    def remove_leftovers(self, folder_uri: str) -> None:
        """A PUT that did not end leaves nothing behind."""

    def _pages(self, folder_uri: str, **options: str) -> Iterator[dict[str, Any]]:
        place = _place(folder_uri)
        prefix = place["Key"].lstrip("/")
        more: dict[str, str] = {}
        while True:
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
            self._retries["request"] += again

    def _retrying(self, kind: str, condition: Any) -> Retrying:
        def count(_: Any) -> None:
            self._retries[kind] += 1

        return Retrying(
            before_sleep=count,
            retry=retry_if_exception(condition),
            stop=stop_after_attempt(self._attempts),
            wait=wait_random_exponential(multiplier=0.2, max=20),
            reraise=True,
        )


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
    """Give botocore's error: s3fs raises some of Python's own, and keeps it as the cause."""
    return error if isinstance(error, ClientError | BotoCoreError) else error.__cause__


def _is_refusal(error: BaseException) -> bool:
    """Whether asking again can't help: bad names, profiles and regions, and answers 3xx or 4xx."""
    source = _source(error)
    if isinstance(source, ClientError):
        status = source.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        return bool(300 <= status < 500)
    may_pass = (HTTPClientError, *_NOBODY_THERE)
    return isinstance(source, BotoCoreError) and not isinstance(source, may_pass)


def _raise_local(error: OSError, uri: str) -> NoReturn:
    if isinstance(error, NotADirectoryError):
        message = f"{uri}: a part of the path is a file, not a folder"
        raise StoreError(ErrorCode.NOT_FOUND, message) from error
    if isinstance(error, FileNotFoundError):
        raise StoreError(ErrorCode.NOT_FOUND, f"{uri} does not exist") from error
    reason = error.strerror or str(error)
    if isinstance(error, PermissionError):
        raise StoreError(ErrorCode.FORBIDDEN, f"{uri}: {reason}") from error
    raise StoreError(ErrorCode.TIMEOUT, f"{uri}: {reason}") from error


def _check_size(uri: str, num_bytes: int, max_bytes: int | None) -> None:
    if max_bytes is not None and num_bytes > max_bytes:
        raise StoreError(
            ErrorCode.TOO_MANY_BYTES,
            f"{uri} has {num_bytes} bytes, the limit is {max_bytes} (max_image_bytes)",
        )


def _changed(uri: str, version: str, found: str) -> StoreError:
    return StoreError(
        ErrorCode.CHANGED, f"{uri} was planned as version {version} and is {found} by now"
    )


def _local_version(found: os.stat_result) -> str:
    return f"{found.st_mtime_ns}-{found.st_size}"


def _write_temporary(path: str, data: bytes) -> str:
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f"{_TEMPORARY}{uuid.uuid4().hex[:12]}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            # Else a power cut can leave the name without the bytes.
            os.fsync(file.fileno())
    except OSError:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return temporary
