"""Reading what a page shows of an image: its photograph beside its mask, both small.

What can't be read is a note on the page and nothing else: the masks are there, the run is done.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.images.decode import decode_image
from pipeline.images.likeness import perceptual_hash
from pipeline.images.masks import decode_mask
from pipeline.images.overlay import shrink, shrink_mask
from pipeline.labelling.page.candidates import Row
from pipeline.labelling.runs import Run
from pipeline.store.cells import read_image
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage

# As wide as two beside each other are shown on a fine screen.
_SIDE = 288
_MAX_BYTES = 1 << 30
_MAX_PIXELS = 1 << 30
# Of large photographs so many are in memory.
_THREADS = 4
# A page is no reason to wait for a store: less patience than the work has.
_ATTEMPTS, _PATIENCE_S = 3, 5.0


@dataclass(frozen=True)
class Picture:
    """An image as it is shown.

    Attributes:
        row: A row of the images table.
        pixels: RGB, uint8 of shape (H, W, 3), small.
        mask: Class indices, uint8 of shape (H, W), of the same size.
        likeness: The photograph's perceptual hash.
    """

    row: Row
    pixels: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    likeness: int


class Pictures:
    """Reads pictures, several at a time, as long as there is time.

    Attributes:
        unread: What could not be read, by image_id: its key and why.
    """

    def __init__(self, run: Run, seconds: float) -> None:
        """Begin.

        Args:
            run: Whose images are read.
            seconds: From now, after which no further picture is waited for.
        """
        self._storage = _impatient(run.storage)
        self._end = time.monotonic() + seconds
        self._pool = ThreadPoolExecutor(_THREADS)
        self.unread: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Do nothing more."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for no picture any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def read(self, rows: Sequence[Row]) -> Iterator[Picture]:
        """Read the pictures of some rows, in order, without those that can't be read."""
        new = [row for row in rows if row["image_id"] not in self.unread]
        waiting = [(row, self._pool.submit(_read, self._storage, row)) for row in new]
        for row, future in waiting:
            try:
                yield self._result(future)
            except Exception as error:  # noqa: BLE001 - whatever it is, it costs one picture
                late = isinstance(error, TimeoutError)
                why = str(error) or ("not read in time" if late else type(error).__name__)
                self.unread[row["image_id"]] = f"{row['key']}: {why}"

    def _result(self, future: "Future[Picture]") -> Picture:
        return future.result(max(0.0, self._end - time.monotonic()))


def _read(storage: Storage, row: Row) -> Picture:
    data = read_image(storage.for_input(), Extent.of_image(row), row["etag"], _MAX_BYTES)
    pixels = shrink(decode_image(data, _MAX_PIXELS), _SIDE)
    mask = shrink_mask(decode_mask(storage.read_extent(Extent.of_mask(row))), _SIDE)
    if mask.shape != pixels.shape[:2]:
        raise ValueError(f"its mask has another shape: {mask.shape}, not {pixels.shape[:2]}")
    return Picture(row, pixels, mask, perceptual_hash(pixels))


def _impatient(storage: Storage) -> Storage:
    return replace(
        storage,
        attempts=min(storage.attempts, _ATTEMPTS),
        patience_s=min(storage.patience_s, _PATIENCE_S),
        timeout_s=min(storage.timeout_s, _PATIENCE_S),
    )
