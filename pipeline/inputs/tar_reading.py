"""Reading the headers of a tar, and as little else as may be.

Between two small members little lies, so that a window of their tar is read at once; a large one
is hopped over.
"""

import tarfile

from pipeline.store.entry import Entry
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage

# So much is read at once; after a hop of more than `_HOP` only what a few headers take.
_WINDOW = 1 << 20
_HOP = 256 << 10
_HEADERS = 16 << 10
# Names of a member, and what else PAX says of it, may be as long; a damaged header says more.
_LONGEST_READ = 16 << 20


class TarReading:
    """A tar as a file that `tarfile` reads; each request asks for one version of it.

    Attributes:
        num_reads: Requests made so far.
    """

    def __init__(self, storage: Storage, tar: Entry) -> None:
        """Begin at the start, without reading.

        Args:
            storage: Storage that holds the tar.
            tar: The tar as it was listed.
        """
        self._storage = storage
        self._tar = tar
        self._position = 0
        self._start, self._window = 0, b""
        self.num_reads = 0

    def tell(self) -> int:
        """Return the place of the next byte, from 0."""
        return self._position

    def seek(self, position: int) -> int:
        """Go to a place, from 0, also beyond the end."""
        self._position = position
        return position

    def read(self, size: int) -> bytes:
        """Read on.

        Args:
            size: Bytes to read; fewer are returned at the end of the tar.

        Raises:
            StoreError: With code `changed` if the tar is another one by now.
            tarfile.ReadError: It is more than any header takes.
        """
        if size > _LONGEST_READ:
            raise tarfile.ReadError(f"a header of {size} bytes")
        end = min(self._position + size, self._tar.num_bytes)
        if end <= self._position:
            return b""
        if not self._start <= self._position <= end <= self._start + len(self._window):
            self._fill(end - self._position)
        first = self._position - self._start
        data = self._window[first : first + end - self._position]
        self._position = end
        return data

    def _fill(self, size: int) -> None:
        """Read a window from the position on."""
        hop = self._position - self._start - len(self._window)
        size = max(size, _HEADERS if hop > _HOP else _WINDOW)
        size = min(size, self._tar.num_bytes - self._position)
        place = Extent(self._tar.uri, self._position, size)
        self._window = self._storage.read_version_of(place, self._tar.version, size)
        self._start = self._position
        self.num_reads += 1
