"""Requests to S3 through s3fs, which sees every header, and says more of what goes wrong."""

import asyncio
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import botocore
import fsspec
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, NoCredentialsError
from botocore.httpsession import get_cert_path
from botocore.utils import percent_encode
from fsspec.asyn import sync

from pipeline.errors import ErrorCode, StoreError
from pipeline.store.access import Access
from pipeline.store.bucket import Answer, Page, bucket_of, key_of
from pipeline.store.bucket_answers import check_answer, check_page, check_span, version_of
from pipeline.store.bucket_errors import BodyBrokeError
from pipeline.store.entry import Entry, check_size
from pipeline.store.s3_pages import parse_pages_fast
from pipeline.store.speed import SLOWEST_BYTES_PER_S, Speed

_READ_BYTES = 1 << 20
_NOTES = "fcn-note-address"
# What boto raises over headers and entries that hold no date, no number, or no name.
_MAKES_NO_SENSE = (ValueError, LookupError, TypeError, AttributeError, OverflowError)
_MAX_BYTES = 1 << 63


class Address(NamedTuple):
    """Where a bucket is.

    Attributes:
        url: The URL of the bucket; its name is in the host or in the path.
        region: For which its requests are signed.
    """

    url: str
    region: str


# S3 shows empty pages where much was removed.
_MAX_EMPTY_PAGES = 1_000


class S3Client:
    """S3, through s3fs; every request is limited in time as a whole."""

    def __init__(self, endpoint_url: str | None, timeout_s: float, access: Access) -> None:
        """Open it.

        Args:
            endpoint_url: As the attribute of `Storage`.
            timeout_s: As the attribute of `Storage`.
            access: How it is entered.
        """
        self._timeout_s = timeout_s
        # Of the buckets that were asked, as they were asked last.
        self.addresses: dict[str, Address] = {}
        self._opening = asyncio.Lock()
        self._fs = fsspec.filesystem(
            "s3",
            # One client for all threads: fsspec keeps one for each.
            skip_instance_cache=True,
            endpoint_url=endpoint_url,
            use_listings_cache=False,
            config_kwargs={
                "connect_timeout": timeout_s,
                "read_timeout": timeout_s,
                "retries": {"mode": "standard", "total_max_attempts": 1},
                "max_pool_connections": 64,
            },
            **access.for_s3fs(),
        )
        # botocore and s3fs retry a few times within seconds, which a burst of 503 outlives.
        self._fs.retries = 1

    def get(
        self,
        uri: str,
        if_match: str | None,
        max_bytes: int | None,
        span: range | None = None,
    ) -> tuple[Answer, bytes]:
        """Implement `Client.get`."""
        condition = {} if if_match is None else {"IfMatch": if_match}
        if span is not None:
            condition["Range"] = f"bytes={span.start}-{span.stop - 1}"

        async def get() -> tuple[Answer, bytes]:
            # The public call_s3 waits for the answer alone; the body must be read in the loop.
            answer = await self._limited("get_object", 0, **_place(uri), **condition)
            async with answer["Body"] as body:
                check_answer(answer)
                check_size(uri, answer.get("ContentLength", 0), max_bytes)
                try:
                    data = await _read_all(body, uri, max_bytes, self._timeout_s)
                except (OSError, BotoCoreError, aiohttp.ClientError) as error:
                    raise BodyBrokeError(f"the answer broke off: {error!r}") from error
                return (answer, data) if span is None else _of_span(answer, data, span)

        answered: tuple[Answer, bytes] = sync(self._fs.loop, get)
        return answered

    def put(self, uri: str, data: bytes, *, if_absent: bool) -> Answer:
        """Implement `Client.put`."""
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        return self._call("put_object", len(data), **_place(uri), Body=data, **condition)

    def head(self, uri: str) -> Answer:
        """Implement `Client.head`."""
        return self._call("head_object", 0, **_place(uri))

    def get_a_byte(self, uri: str) -> None:
        """Implement `Client.get_a_byte`."""
        self._call("get_object", 0, **_place(uri), Range="bytes=0-0")

    def delete(self, uri: str) -> None:
        """Implement `Client.delete`."""
        self._call("delete_object", 0, **_place(uri))

    def pages(self, folder_uri: str, *, is_deep: bool) -> "S3Pages":
        """Implement `Client.pages`."""
        return S3Pages(self, folder_uri, is_deep=is_deep)

    def listed(self, uri: str) -> Entry | None:
        """Implement `Client.listed`."""
        place = _place(uri)
        page = self.page(Bucket=place["Bucket"], Prefix=place["Key"], MaxKeys=1)
        for found in page.get("Contents", ()):
            if found["Key"] == place["Key"]:
                return _entry(place["Bucket"], found)
        return None

    def page(self, **arguments: Any) -> Answer:
        """Ask for one page of a listing.

        Args:
            arguments: By boto's names.
        """
        page = self._call("list_objects_v2", 0, **arguments)
        check_page(page)
        return page

    def credentials(self) -> ReadOnlyCredentials:
        """Return the credentials of the moment. Raises NoCredentialsError."""

        async def find() -> ReadOnlyCredentials:
            await self._fs.set_session()
            found = await self._fs.session.get_credentials()
            if found is None:
                raise NoCredentialsError
            return await found.get_frozen_credentials()

        credentials: ReadOnlyCredentials = sync(self._fs.loop, find)
        return credentials

    def ca_bundle(self) -> str:
        """Return the path of the certificates that are trusted."""
        path: str = get_cert_path(self._fs.session.get_config_variable("ca_bundle") or True)
        return path

    def _note_address(self, request: Any, signature_version: object, **_: object) -> None:
        """Take down where a request goes, before it is signed; only what obstore could sign."""
        context = request.context
        bucket = context.get("input_params", {}).get("Bucket", "")
        if signature_version not in ("s3v4", botocore.UNSIGNED) or ":" in bucket:
            self.addresses.pop(bucket, None)
            return
        url = urlsplit(request.url)
        path = url.path.removesuffix(_encoded(context["input_params"].get("Key", "")))
        region = context.get("signing", {}).get("region") or context.get("client_region") or ""
        self.addresses[bucket] = Address(
            urlunsplit((url.scheme, url.netloc, path.rstrip("/"), "", "")), region
        )

    def _call(self, method: str, num_bytes: int, **arguments: Any) -> dict[str, Any]:
        """Make one request whose answer has no body of its own."""
        answer: dict[str, Any] = sync(self._fs.loop, self._limited, method, num_bytes, **arguments)
        check_answer(answer)
        return answer

    async def _limited(self, method: str, num_bytes: int, **arguments: Any) -> dict[str, Any]:
        """Limit a request as a whole: to connect, to send so many bytes, and to be answered."""
        seconds = 2 * self._timeout_s + num_bytes / SLOWEST_BYTES_PER_S
        async with self._opening:
            client = await self._fs.set_session()  # which takes its time, once in a process
        parse_pages_fast(client)
        client.meta.events.register("before-sign.s3.*", self._note_address, unique_id=_NOTES)
        call = self._fs._call_s3(method, **arguments)  # noqa: SLF001 - call_s3 has no limit
        try:
            answer: dict[str, Any] = await asyncio.wait_for(call, seconds)
        except TimeoutError as error:
            raise BodyBrokeError(f"no whole answer within {seconds:.0f} s") from error
        except _MAKES_NO_SENSE as error:
            raise BodyBrokeError(f"the answer makes no sense: {error!r}") from error
        return answer


class S3Pages:
    """A listing of a bucket of S3 under way."""

    shows_folders = True

    def __init__(self, client: S3Client, folder_uri: str, *, is_deep: bool) -> None:
        """Begin it.

        Args:
            client: Makes the requests.
            folder_uri: What is listed.
            is_deep: Whether at any depth; else only what lies directly in the folder.
        """
        self._client = client
        self._uri = folder_uri
        self._folder = key_of(folder_uri)
        self._arguments = {"Bucket": bucket_of(folder_uri), "Prefix": self._folder.lstrip("/")}
        self._is_deep = is_deep
        if not is_deep:
            self._arguments["Delimiter"] = "/"
        self._seen: set[str] = set()
        self._before: tuple[object, ...] = ()
        self._num_empty = 0

    def next_page(self) -> Page:
        """Implement `Pages.next_page`."""
        page = self._client.page(**self._arguments)
        is_last = not page.get("IsTruncated")
        if not is_last:
            self._go_on(page)
        try:
            return self._read(page, is_last=is_last)
        except _MAKES_NO_SENSE as error:
            raise BodyBrokeError(f"the listing makes no sense: {error!r}") from error

    def _read(self, page: Answer, *, is_last: bool) -> Page:
        found = page.get("Contents", ())
        bucket = self._arguments["Bucket"]
        entries = [_entry(bucket, one) for one in found if not one["Key"].endswith("/")]
        if self._is_deep:
            return Page(entries, set(), is_last)
        folders = {one["Prefix"] for one in page.get("CommonPrefixes", ())}
        keys = folders | {one["Key"] for one in found}
        names, below = (
            {key.removeprefix(self._folder).rstrip("/") for key in some} for some in (keys, folders)
        )
        return Page(entries, names, is_last, frozenset(below))

    def _go_on(self, page: Answer) -> None:
        """Ask for the next page, unless the store would go on for ever."""
        token = page.get("NextContinuationToken", "")
        if not token or token in self._seen:
            raise self._endless("has more pages and does not say which")
        found = [*page.get("Contents", ()), *page.get("CommonPrefixes", ())]
        ends = (len(found), found[0], found[-1]) if found else ()
        # A store, or what stands before it, that takes no notice of tokens.
        if ends and ends == self._before:
            raise self._endless("shows the same page again under another token")
        self._num_empty = 0 if found else self._num_empty + 1
        if self._num_empty > _MAX_EMPTY_PAGES:
            raise self._endless(f"has shown {self._num_empty:,} empty pages in a row, and more")
        self._before = ends
        self._seen.add(token)
        self._arguments["ContinuationToken"] = token

    def _endless(self, what: str) -> StoreError:
        return StoreError(ErrorCode.TIMEOUT, f"{self._uri}: the listing {what}")


async def _read_all(body: Any, uri: str, max_bytes: int | None, timeout_s: float) -> bytes:
    data, speed = bytearray(), Speed(timeout_s)
    while piece := await body.read(_READ_BYTES):
        data += piece
        check_size(uri, len(data), max_bytes)
        speed.check(len(data))
    return bytes(data)


def _of_span(answer: Answer, data: bytes, span: range) -> tuple[Answer, bytes]:
    """Return the object's headers, and the bytes that were asked for.

    Some stores answer with the whole object, others do not say how large it is.
    """
    given = answer.get("ContentRange")
    if not given:
        return {**answer, "ContentLength": len(data)}, data[span.start : span.stop]
    size = given.rpartition("/")[2]
    num_bytes = int(size) if size.isdecimal() else span.stop
    check_span(data, span, num_bytes)
    return {**answer, "ContentLength": num_bytes}, data


def _entry(bucket: str, found: Answer) -> Entry:
    num_bytes = found.get("Size", 0)
    if not 0 <= num_bytes < _MAX_BYTES:
        raise ValueError(f"{found['Key']} of {num_bytes} bytes")
    return Entry(f"s3://{bucket}/{found['Key']}", version_of(found, num_bytes), num_bytes)


def _encoded(key: str) -> str:
    """Encode a key as botocore puts it into a URL."""
    encoded: str = percent_encode(key, safe="/~")
    return encoded


def _place(uri: str) -> dict[str, str]:
    return {"Bucket": bucket_of(uri), "Key": key_of(uri)}
