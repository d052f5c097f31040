"""The one seam to local disks, object stores and the web.

Each failure of a library is translated once, in `local.py`, `bucket_errors.py` and `http.py`, into
`StoreError` with the code that an image would get for it.
"""

import hashlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from pipeline.errors import ErrorCode, StoreError
from pipeline.store.access import Access
from pipeline.store.attempts import Asking, Pace, Patience, Tally
from pipeline.store.bucket import Bucket, Client, bucket_of
from pipeline.store.clouds import Azure, Cloud, Google
from pipeline.store.entry import Entry, check_size
from pipeline.store.extent import Extent
from pipeline.store.http import Http
from pipeline.store.local import Local
from pipeline.store.s3 import open_s3
from pipeline.store.uri import BUCKETS, WEB, as_folder

_log = logging.getLogger(__name__)

# Pauses, in seconds, for a store that says both that an object is there and that it is not.
_AT_ODDS_S = (0.1, 0.5, 2.0, 5.0)


@dataclass(frozen=True)
class Storage:
    """Reads and writes by URI; cheap to build, and travels to workers.

    Attributes:
        s3_endpoint_url: Where S3 is, if not at AWS.
        timeout_s: How long one connection or read may stay silent, in seconds.
        attempts: How often a request is tried at most before it has failed.
        patience_s: For how long, in seconds; a store that never answered gets less.
        retries: Requests that were made again in this process, by kind; `counting` starts anew.
        requests: Requests that were made in this process: read, write, look (at one object) and
            list (one page of a listing); `counting` starts anew.
        access: How buckets are entered.
        input_access: How the input's are, where that is another way.
        pace: What is known of the store's answers, by all who share the storage.
        conditional_put: Whether the store honours `If-None-Match`; where it does not, `create`
            looks before it writes, and only one writer is safe.
        gs_endpoint_url: Where Google Cloud Storage is, if not at Google.
        az_endpoint_url: Where the storage account is, if not at blob.core.windows.net.
        az_account: The storage account of `az://`; None leaves it to the environment.
    """

    s3_endpoint_url: str | None = None
    timeout_s: float = 60.0
    attempts: int = 50
    conditional_put: bool = True
    patience_s: float = 300.0
    access: Access = field(default_factory=Access)
    input_access: Access | None = None
    pace: Pace = field(default_factory=Pace, compare=False, repr=False)
    retries: Tally = field(default_factory=Tally, compare=False, repr=False)
    requests: Tally = field(default_factory=Tally, compare=False, repr=False)
    gs_endpoint_url: str | None = None
    az_endpoint_url: str | None = None
    az_account: str | None = None

    def counting(self) -> "Storage":
        """Return the same storage with counts of its own, which start at nothing."""
        return replace(self, retries=Tally(), requests=Tally())

    def for_input(self) -> "Storage":
        """Return the same storage as it reads the input, with the same counts and pace."""
        return replace(self, access=self.input_access or self.access)

    def read(self, uri: str) -> bytes:
        """Read a whole object, or a file from the web. Raises StoreError."""
        if uri.startswith(WEB):
            return Http(self.timeout_s, replace(self._asking, pace=Pace())).read(uri)
        return self._backend(uri).read(uri, None, None)

    def find(self, uri: str) -> bytes | None:
        """Read a whole object; None if there is none. Raises StoreError."""
        return self.find_extent(Extent(uri))

    def read_extent(self, extent: Extent) -> bytes:
        """Read an object or a part of one; of a part beyond its end, what is there.

        Raises:
            StoreError: There is no such object, or the store did not answer.
        """
        if extent.span is None:
            return self.read(extent.uri)
        if extent.uri.startswith(WEB):
            return self.read(extent.uri)[extent.span.start : extent.span.stop]
        return self._backend(extent.uri).read_span(extent.uri, extent.span)

    def find_extent(self, extent: Extent) -> bytes | None:
        """Read an object or a part of one; None if there is no object. Raises StoreError."""
        try:
            return self.read_extent(extent)
        except StoreError as error:
            if error.code is ErrorCode.NOT_FOUND:
                return None
            raise

    def read_version(
        self, uri: str, version: str | None, max_bytes: int, num_bytes: int | None = None
    ) -> bytes:
        """Read an object if it still has this version.

        Args:
            uri: The object.
            version: `Entry.version` as it was listed; None takes any.
            max_bytes: Of a larger object nothing is read.
            num_bytes: Its size as it was listed; another number of bytes is asked for anew.

        Raises:
            StoreError: With code `changed` if the object has another version by now, with
                `too_many_bytes` if it is larger than the limit.
        """
        return self._backend(uri).read(uri, version, max_bytes, num_bytes)

    def read_version_of(
        self, extent: Extent, version: str | None, max_bytes: int, num_bytes: int | None = None
    ) -> bytes:
        """Read an object, or a part of one, if the object still has this version.

        Args:
            extent: Which bytes.
            version: Of the object, as `Entry.version`; None takes any.
            max_bytes: Of what is larger nothing is read.
            num_bytes: The size as `read_version` takes it; a part has its size in `extent`.

        Raises:
            StoreError: As `read_version`; also `changed` for a part that the object has not.
        """
        if extent.span is None:
            return self.read_version(extent.uri, version, max_bytes, num_bytes)
        check_size(str(extent), len(extent.span), max_bytes)
        return self._backend(extent.uri).read_span(extent.uri, extent.span, version)

    def write(self, uri: str, data: bytes) -> None:
        """Write an object whole or not at all; replaces what is there.

        Raises:
            StoreError: The store did not take it.
            InputError: On a disk, a folder has its name.
        """
        self._backend(uri).write(uri, data)

    def create(self, uri: str, data: bytes) -> bool:
        """Write an object if there is none: put-if-absent.

        A lost answer is settled by the bytes: whoever finds its own there has succeeded.

        Returns:
            Whether the object holds `data` now. False: somebody else's is there, untouched.

        Raises:
            StoreError: The store did not answer.
            InputError: On a disk, a folder has its name.
        """
        if self.conditional_put and uri.startswith(BUCKETS):
            return self._create_if_absent(uri, data)
        if self.conditional_put:
            return self._backend(uri).create(uri, data) or self.read(uri) == data
        return self._look_and_write(uri, data)

    def _create_if_absent(self, uri: str, data: bytes) -> bool:
        """Settle also a refusal of what is not there, which stores give while they are at odds."""
        backend = self._backend(uri)
        for pause_s in _AT_ODDS_S:
            if backend.create(uri, data):
                return True
            if (there := self.find(uri)) is not None:
                return there == data
            time.sleep(pause_s)
        _log.warning("%s: the store refuses it as existing, and has no such object", uri)
        return self._look_and_write(uri, data)

    def _look_and_write(self, uri: str, data: bytes) -> bool:
        if (there := self.find(uri)) is not None:
            return there == data
        self._backend(uri).write(uri, data)
        return True

    def stat(self, uri: str) -> Entry:
        """Look an object up. Raises StoreError, with code `not_found` if there is none."""
        return self._backend(uri).stat(uri)

    def exists(self, uri: str) -> bool:
        """Return whether there is an object of this name. Raises StoreError."""
        try:
            self.stat(uri)
        except StoreError as error:
            if error.code is ErrorCode.NOT_FOUND:
                return False
            raise
        return True

    def lists(self, uri: str) -> bool:
        """Whether the listing shows an object. Raises StoreError, if the store lists nothing."""
        return self._backend(uri).lists(uri)

    def walk(self, folder_uri: str) -> Iterator[Entry]:
        """List all objects below a folder, at any depth, in no order. Raises StoreError."""
        return self._backend(folder_uri).walk(as_folder(folder_uri))

    def children(self, folder_uri: str) -> list[str]:
        """List the names directly below a folder, sorted; none if there is no such folder."""
        return self._backend(folder_uri).children(as_folder(folder_uri))

    def remove(self, uri: str) -> None:
        """Remove an object, if there is one. Raises StoreError."""
        self._backend(uri).remove(uri)

    def remove_folder(self, folder_uri: str) -> None:
        """Remove all objects below a folder, at any depth, if there are any. Raises StoreError."""
        self._backend(folder_uri).remove_folder(as_folder(folder_uri))

    def remove_leftovers(self, folder_uri: str) -> None:
        """Remove what writes of killed processes left below a folder; a bucket has none."""
        self._backend(folder_uri).remove_leftovers(folder_uri)

    def _backend(self, uri: str) -> "_Backend":
        if not uri.startswith(BUCKETS):
            return Local(self.requests)
        return Bucket(self._client(uri), self._asking)

    def _client(self, uri: str) -> Client:
        if uri.startswith("gs://"):
            opens = Google(bucket_of(uri), self.timeout_s, self.access, self.gs_endpoint_url)
            return Cloud(opens)
        if uri.startswith("az://"):
            place = (bucket_of(uri), self.timeout_s, self.access)
            return Cloud(Azure(*place, self.az_endpoint_url, self.az_account))
        return open_s3(self.s3_endpoint_url, self.timeout_s, self.access)

    @property
    def _asking(self) -> Asking:
        patience = Patience(self.attempts, self.patience_s)
        return Asking(patience, self.pace, self.retries, self.requests)


def sha256_hex(data: bytes) -> str:
    """SHA-256 as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


class _Backend(Protocol):
    def read(
        self, uri: str, version: str | None, max_bytes: int | None, num_bytes: int | None = None
    ) -> bytes: ...
    def read_span(self, uri: str, span: range, version: str | None = None) -> bytes: ...
    def write(self, uri: str, data: bytes) -> None: ...
    def create(self, uri: str, data: bytes) -> bool: ...
    def stat(self, uri: str) -> Entry: ...
    def lists(self, uri: str) -> bool: ...
    def walk(self, folder_uri: str) -> Iterator[Entry]: ...
    def children(self, folder_uri: str) -> list[str]: ...
    def remove(self, uri: str) -> None: ...
    def remove_folder(self, folder_uri: str) -> None: ...
    def remove_leftovers(self, folder_uri: str) -> None: ...
