"""An object as a file, of which no more lies in memory than is read at a time."""

import io
from typing import Any

from pipeline.store.entry import Entry
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage

_BUFFER_BYTES = 8 << 20


def open_object(storage: Storage, uri: str) -> io.BufferedReader:
    """Open an object as it is now: another version of it can't be read any more.

    Args:
        storage: Where it is.
        uri: The object.

    Raises:
        StoreError: It can't be looked up.
    """
    return io.BufferedReader(ObjectFile(storage, storage.stat(uri)), _BUFFER_BYTES)


class ObjectFile(io.RawIOBase):
    """One version of an object as a file of which every read is a request."""

    def __init__(self, storage: Storage, entry: Entry) -> None:
        """Name the object; nothing is read.

        Args:
            storage: Where it is.
            entry: The object as it was listed.
        """
        self._storage = storage
        self._entry = entry
        self._position = 0

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that any place can be read."""
        return True

    def tell(self) -> int:
        """Return the place of the next read, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place; see `io.IOBase.seek`."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._entry.num_bytes}
        self._position = start[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, as much as there is; see `io.RawIOBase.readinto`.

        Raises:
            StoreError: As `Storage.read_version_of`.
        """
        size = min(len(buffer), max(0, self._entry.num_bytes - self._position))
        if size:
            place = Extent(self._entry.uri, self._position, size)
            buffer[:size] = self._storage.read_version_of(place, self._entry.version, size)
            self._position += size
        return size
