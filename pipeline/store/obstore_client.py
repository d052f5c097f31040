"""Requests through obstore: a quarter of the CPU that s3fs needs, and the headers unseen."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import lru_cache
from threading import Thread, current_thread, main_thread
from typing import TYPE_CHECKING, Protocol, TypeVar

import obstore

from pipeline.errors import ErrorCode, StoreError
from pipeline.store.bucket import Answer, key_of
from pipeline.store.bucket_answers import check_span
from pipeline.store.bucket_errors import BodyBrokeError, UnclearError
from pipeline.store.entry import check_size
from pipeline.store.obstore_errors import OBSTORE_ERRORS, translated
from pipeline.store.panics import is_panic
from pipeline.store.speed import SLOWEST_BYTES_PER_S, Speed

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult, PutMode
    from obstore.store import AzureStore, ClientConfig, GCSStore, S3Store

    Opened = AzureStore | GCSStore | S3Store

# Uploads have a limit in time by their size, which is one of a few, since a client has only one.
_LEAST_UPLOAD_BYTES = 64 << 10
# As aiohttp keeps them: servers close connections that idle for longer.
_IDLE = "12s"
_FOREVER = "30days"
_ODD = re.compile(r"/\.{0,2}/|[\x00-\x1f\x7f]")

_Answered = TypeVar("_Answered")


class Opens(Protocol):
    """Opens a bucket for obstore, once in a process for all that are equal to it."""

    def __hash__(self) -> int:
        """What is opened is kept under it."""

    @property
    def timeout_s(self) -> float:
        """As the attribute of `Storage`."""

    def open(self, options: "ClientConfig", *, writes: bool) -> "Opened":
        """Open it.

        Args:
            options: Limits in time.
            writes: Whether to write; else to read.
        """


class ObstoreClient:
    """A bucket through obstore; each request is limited in time, and tried once."""

    def __init__(self, opens: Opens, *, quotes_etags: bool = False) -> None:
        """Name it; it is opened with the first request.

        Args:
            opens: Opens it.
            quotes_etags: Whether the store wants an ETag quoted, as HTTP does.
        """
        self._opens = opens
        self._condition = '"{}"' if quotes_etags else "{}"

    def get(
        self,
        uri: str,
        if_match: str | None,
        max_bytes: int | None,
        span: range | None = None,
    ) -> tuple[Answer, bytes]:
        """Implement `Client.get`."""
        options: GetOptions = {}
        if if_match is not None:
            options["if_match"] = self._condition.format(if_match)
        if span is not None:
            options["range"] = (span.start, span.stop)

        def get() -> tuple[Answer, bytes]:
            result = obstore.get(opened_for_reading(self._opens), _name(uri), options=options)
            answer = _answer(result)
            check_size(uri, answer["ContentLength"], max_bytes)
            # Pieces as small as they come, else obstore waits for more of what drips.
            data = _read_all(result.stream(min_chunk_size=1), self._opens.timeout_s)
            if span is not None:
                check_span(data, span, answer["ContentLength"])
            return answer, data

        return asked(get)

    def put(self, uri: str, data: bytes, *, if_absent: bool) -> Answer:
        """Implement `Client.put`."""
        power = max(_LEAST_UPLOAD_BYTES, 1 << max(len(data) - 1, 0).bit_length())
        mode: PutMode = "create" if if_absent else "overwrite"

        def put() -> Answer:
            store = _opened_for_writing(self._opens, power)
            done = obstore.put(store, _name(uri), data, mode=mode, use_multipart=False)
            return {"ETag": done["e_tag"]}

        return asked(put)

    def head(self, uri: str) -> Answer:
        """Implement `Client.head`."""
        return asked(
            lambda: _answer(
                obstore.get(opened_for_reading(self._opens), _name(uri), options={"head": True})
            )
        )

    def get_a_byte(self, uri: str) -> None:
        """Implement `Client.get_a_byte`."""
        asked(
            lambda: obstore.get_range(opened_for_reading(self._opens), _name(uri), start=0, end=1)
        )

    def delete(self, uri: str) -> None:
        """Implement `Client.delete`."""
        asked(lambda: obstore.delete(opened_for_reading(self._opens), _name(uri)))


@lru_cache(maxsize=256)
def opened_for_reading(opens: Opens) -> "Opened":
    """Open a bucket to read, look up, list and remove what is in it."""
    silent = f"{opens.timeout_s}s"
    options: ClientConfig = {
        "connect_timeout": silent,
        "read_timeout": silent,
        "timeout": _FOREVER,
        "pool_idle_timeout": _IDLE,
    }
    return opens.open(options, writes=False)


@lru_cache(maxsize=256)
def _opened_for_writing(opens: Opens, num_bytes: int) -> "Opened":
    """Open a bucket for uploads of so many bytes: no answer is due while they are sent."""
    upload_s = num_bytes / SLOWEST_BYTES_PER_S
    options: ClientConfig = {
        "connect_timeout": f"{opens.timeout_s}s",
        "read_timeout": f"{opens.timeout_s + upload_s}s",
        "timeout": f"{2 * opens.timeout_s + upload_s}s",
        "pool_idle_timeout": _IDLE,
    }
    return opens.open(options, writes=True)


def can_name(uri: str) -> bool:
    """Return whether obstore means the same object by a key.

    It takes slashes at the ends off, and refuses empty parts, `.`, `..` and control characters.
    """
    key = key_of(uri)
    return _ODD.search(f"/{key}/") is None


def check_name(uri: str) -> None:
    """Refuse a key by which obstore would mean another object. Raises StoreError."""
    if key_of(uri) and not can_name(uri):
        raise StoreError(
            ErrorCode.NOT_FOUND,
            f"{uri!r}: keys with empty parts, `.`, `..` or control characters are read in S3 only",
        )


def _name(uri: str) -> str:
    check_name(uri)
    return key_of(uri)


def _answer(result: "GetResult") -> Answer:
    """Return the headers of an object. Raises UnclearError for what may be a page for people."""
    meta = result.meta
    if meta["e_tag"] is None and result.attributes.get("Content-Type", "").startswith("text/html"):
        raise UnclearError("the answer has no ETag, and may be a page for people (text/html)")
    answer: dict[str, object] = {"ETag": meta["e_tag"], "ContentLength": meta["size"]}
    if meta["last_modified"].timestamp():  # else there was none
        answer["LastModified"] = meta["last_modified"]
    return answer


def _read_all(pieces: Iterator[bytes], timeout_s: float) -> bytes:
    data, speed = bytearray(), Speed(timeout_s)
    for piece in pieces:
        data += piece
        speed.check(len(data))
    return bytes(data)


def asked(request: Callable[[], _Answered]) -> _Answered:
    """Make a request, and translate what goes wrong.

    obstore waits where no signal is taken. The main thread, which takes them, lets another wait.
    """
    if current_thread() is not main_thread():
        return _translating(request)
    answered: Future[_Answered] = Future()
    Thread(target=_answer_to, args=(answered, request), name="request").start()
    return answered.result()


def _answer_to(answered: "Future[_Answered]", request: Callable[[], _Answered]) -> None:
    try:
        answered.set_result(_translating(request))
    except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
        answered.set_exception(error)


def _translating(request: Callable[[], _Answered]) -> _Answered:
    try:
        return request()
    except (StoreError, BodyBrokeError, UnclearError):
        raise
    except OBSTORE_ERRORS as error:
        raise translated(error) from error
    except BaseException as error:
        if not is_panic(error):
            raise
        # An `Exception`, so that whatever makes one image's row of an error finds it.
        raise RuntimeError(f"obstore gave a request up: {error}") from error
