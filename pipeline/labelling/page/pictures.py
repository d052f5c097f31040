"""Reading what a page shows of an image: its photograph beside its mask, both small.

What can't be read is a note on the page and nothing else: the masks are there, the run is done.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.images.decode import decode_image
from pipeline.images.likeness import perceptual_hash
from pipeline.images.masks import decode_mask
from pipeline.images.overlay import shrink, shrink_mask
from pipeline.labelling.page.candidates import Row
from pipeline.labelling.page.reads import Deadline, Reads, in_a_hurry
from pipeline.labelling.runs import Run
from pipeline.store.cells import read_image
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage

_MAX_BYTES = 1 << 30
_MAX_PIXELS = 1 << 30
# Of large photographs so many are in memory.
_THREADS = 4


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
        no_mask_before: Why a mask of the run before could not be read, of each.
    """

    def __init__(self, run: Run, side: int, deadline: Deadline) -> None:
        """Begin.

        Args:
            run: Whose images are read.
            side: Pixels of a picture's longer side, at most.
            deadline: After which no further picture is waited for.
        """
        storage = in_a_hurry(run).storage
        self._read = partial(_read, storage, side)
        self._read_mask = partial(_read_mask, storage, side)
        self._reads = Reads(deadline, _THREADS)
        self.unread: dict[str, str] = {}
        self.no_mask_before: list[str] = []

    def __enter__(self) -> Self:
        """Do nothing more."""
        return self

    def __exit__(self, *of: object) -> None:
        """Wait for no picture any more."""
        self._reads.__exit__(*of)

    def read(self, rows: Sequence[Row]) -> Iterator[Picture]:
        """Read the pictures of some rows, in order, without those that can't be read."""
        new = [row for row in rows if row["image_id"] not in self.unread]
        waiting = [(row, self._reads.ask(partial(self._read, row))) for row in new]
        for row, answer in waiting:
            try:
                picture = self._reads.wait(answer)
            except Exception as error:  # noqa: BLE001 - whatever it is, it costs one picture
                self.unread[row["image_id"]] = _why(row, error)
            else:
                yield picture

    def read_before(self, shown: Sequence[Picture]) -> Iterator[NDArray[np.uint8] | None]:
        """Read the masks that the run before has of some pictures; None for what can't be read.

        Args:
            shown: With `mask_before` in their rows.
        """
        waiting = [
            (one, self._reads.ask(partial(self._read_mask, one.row["mask_before"], one.pixels)))
            for one in shown
        ]
        for one, answer in waiting:
            try:
                mask = self._reads.wait(answer)
            except Exception as error:  # noqa: BLE001 - whatever it is, it costs one mask
                self.no_mask_before.append(_why(one.row, error))
                yield None
            else:
                yield mask


def _why(row: Row, error: Exception) -> str:
    late = isinstance(error, TimeoutError)
    why = str(error) or ("not read in time" if late else type(error).__name__)
    return f"{row['key']}: {why}"


def _read(storage: Storage, side: int, row: Row) -> Picture:
    data = read_image(storage.for_input(), Extent.of_image(row), row["etag"], _MAX_BYTES)
    pixels = shrink(decode_image(data, _MAX_PIXELS), side)
    mask = _read_mask(storage, side, row, pixels)
    return Picture(row, pixels, mask, perceptual_hash(pixels))


def _read_mask(
    storage: Storage, side: int, row: Row, pixels: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Read a mask that is to lie over a picture, as small as that is."""
    mask = shrink_mask(decode_mask(storage.read_extent(Extent.of_mask(row))), side)
    if mask.shape != pixels.shape[:2]:
        raise ValueError(f"its mask has another shape: {mask.shape}, not {pixels.shape[:2]}")
    return mask
