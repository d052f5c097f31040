"""What a selection has taken so far: none twice, few of a folder, and no near-duplicates."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipeline.errors import ImageError, StoreError
from pipeline.export.best import Best, folder_of
from pipeline.export.items import is_of_one_image
from pipeline.export.newest import Row
from pipeline.images.decode import decode_image
from pipeline.images.likeness import is_near, perceptual_hash
from pipeline.store.cells import read_image
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage

_log = logging.getLogger(__name__)

# Of near-duplicates only one is taken: so many times as many pictures are looked at.
_MORE = 10
_MAX_BYTES = 1 << 30
_MAX_PIXELS = 1 << 30
_PICTURES_AT_A_TIME = 64


class Pictures:
    """Reads what pictures look like, several at a time."""

    def __init__(self, storage: Storage, threads: int) -> None:
        """Begin.

        Args:
            storage: As it reads the input.
            threads: Pictures to read at a time.
        """
        self._storage = storage
        self._threads = threads

    def hashes(self, rows: Sequence[Row]) -> Iterator[tuple[Row, int | None]]:
        """Hash the pictures of some rows, in order; None for one that can't be read any more."""
        with ThreadPoolExecutor(self._threads) as pool:
            for start in range(0, len(rows), _PICTURES_AT_A_TIME):
                some = rows[start : start + _PICTURES_AT_A_TIME]
                yield from zip(some, pool.map(self._hash, some), strict=True)

    def _hash(self, row: Row) -> int | None:
        try:
            data = read_image(self._storage, Extent.of_image(row), row["etag"], _MAX_BYTES)
            return perceptual_hash(decode_image(data, _MAX_PIXELS))
        except (StoreError, ImageError) as error:
            if not is_of_one_image(error):
                raise
            _log.warning("left out, since it can't be read any more: %s", error)
            return None


class Taken:
    """Takes rows in order of their scores, as far as they are allowed."""

    def __init__(self, per_folder: int | None, pictures: Pictures | None) -> None:
        """Begin with none.

        Args:
            per_folder: Rows of one folder at most; None sets no limit.
            pictures: Reads pictures, so that no near-duplicates are taken; None allows them.
        """
        self._per_folder = per_folder
        self._pictures = pictures
        self._uris: set[str] = set()
        self._in_folder: Counter[str] = Counter()
        self._hashes: list[int] = []

    def best(self, number: int) -> Best:
        """Return what collects the candidates for so many rows more."""
        more = _MORE if self._pictures else 1
        limit = self._per_folder and self._per_folder * more
        return Best(number * more, limit, self._in_folder, self._uris)

    def take(self, rows: Sequence[Row], number: int) -> Iterator[Row]:
        """Take so many of some rows, the first ones that are allowed."""
        pairs = self._pictures.hashes(rows) if self._pictures else ((row, 0) for row in rows)
        for row, picture in pairs:
            if not self._allows(row, picture):
                continue
            self._uris.add(row["uri"])
            self._in_folder[folder_of(row)] += 1
            if self._pictures and picture is not None:
                self._hashes.append(picture)
            yield row
            number -= 1
            if not number:
                return

    def _allows(self, row: Row, picture: int | None) -> bool:
        if picture is None:
            return False
        full = self._per_folder is not None and self._in_folder[folder_of(row)] >= self._per_folder
        return not full and not any(is_near(picture, other) for other in self._hashes)
