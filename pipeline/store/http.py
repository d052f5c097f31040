"""The web as a store that is only read; its errors are translated here."""

from typing import NoReturn

import aiohttp
import fsspec

from pipeline.errors import ErrorCode, StoreError
from pipeline.redact import without_secret
from pipeline.store.attempts import Asking, retrying

_ASK_AGAIN = (408, 429)


class Http:
    """A file behind http:// or https://; a query may hold a signature, which no message shows."""

    def __init__(self, timeout_s: float, asking: Asking) -> None:
        """Open it.

        Args:
            timeout_s: How long one connection or read may stay silent, in seconds.
            asking: How it is asked.
        """
        self._asking = asking
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=timeout_s, sock_read=timeout_s)
        self._fs = fsspec.filesystem(
            "http", client_kwargs={"timeout": timeout}, skip_instance_cache=True
        )

    def read(self, uri: str) -> bytes:
        """Implement `Storage.read`."""

        def get() -> bytes:
            self._asking.requests.count("read")
            found: bytes = self._fs.cat_file(uri)
            return found

        try:
            asking = self._asking
            data = retrying(asking.patience, asking.pace, _may_pass, self._note)(get)
        except (OSError, ValueError, aiohttp.ClientError) as error:
            _raise_http(error, without_secret(uri))
        return data

    def _note(self, _: BaseException) -> None:
        self._asking.retries.count("request")


def _may_pass(error: BaseException) -> bool:
    """Return whether to ask again: not after a signal, and not after a refusal."""
    return isinstance(error, Exception) and not _is_refusal(error)


def _is_refusal(error: BaseException) -> bool:
    """Return whether asking again can't help: no such file, no such form of a URL, answers 4xx."""
    if isinstance(error, aiohttp.ClientResponseError):
        return 400 <= error.status < 500 and error.status not in _ASK_AGAIN
    return isinstance(error, FileNotFoundError | ValueError)


def _raise_http(error: Exception, shown: str) -> NoReturn:
    if isinstance(error, FileNotFoundError):
        raise StoreError(ErrorCode.NOT_FOUND, f"{shown} does not exist") from error
    reason = getattr(error, "message", "") or str(error) or type(error).__name__
    if _is_refusal(error):
        raise StoreError(ErrorCode.FORBIDDEN, f"{shown}: {reason}") from error
    elsewhere = "where this machine reaches no such place, bring the file here and name its path"
    message = f"{shown}: no answer: {reason}; {elsewhere}"
    raise StoreError(ErrorCode.TIMEOUT, message) from error
