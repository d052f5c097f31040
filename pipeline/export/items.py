"""Reading what is exported: an image's row, its mask as `label` has written it, and the image."""

from dataclasses import dataclass

from pipeline.errors import ErrorCode, ImageError, InputError, Scope, StoreError
from pipeline.export.newest import Row
from pipeline.export.upright import for_readers
from pipeline.store.cells import OpenColumns, read_image
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage, sha256_hex

_MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Item:
    """One image with its mask.

    Attributes:
        name: Its name in the export, with slashes between folders and without an ending.
        row: A row of the images table.
        mask: The mask's PNG.
        image: The image's file; None where it is not asked for.
        ending: The ending of the image's file, without a dot; empty where it is not asked for.
    """

    name: str
    row: Row
    mask: bytes
    image: bytes | None = None
    ending: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of both."""
        return self.row["height"], self.row["width"]


def read_item(
    storage: Storage, name: str, row: Row, *, with_image: bool, columns: OpenColumns | None = None
) -> Item:
    """Read an image and its mask.

    Args:
        storage: Of both.
        name: In the export.
        row: The row of the images table, with a mask.
        with_image: Whether to read the image.
        columns: What stays open of Parquet files from one image to the next.

    Raises:
        ImageError: The image can't be decoded any more.
        StoreError: It is gone, or no longer the one that was labelled; of another scope than an
            object's, the store refuses more than this image.
        InputError: The mask is not the one that was written.
    """
    mask = _read_mask(storage, row)
    if not with_image:
        return Item(name, row, mask)
    place = (Extent.of_image(row), row["etag"], _MAX_BYTES)
    data = read_image(storage.for_input(), *place, columns=columns)
    return Item(name, row, mask, *for_readers(data))


def is_of_one_image(error: ImageError | StoreError) -> bool:
    """Return whether a failure is true of its image alone, so that the others can be read.

    Args:
        error: What reading an image has raised.
    """
    if isinstance(error, ImageError):
        return True
    gone = error.refused or error.code in (ErrorCode.CHANGED, ErrorCode.TOO_MANY_BYTES)
    return gone and error.scope is Scope.OBJECT


def _read_mask(storage: Storage, row: Row) -> bytes:
    place = Extent.of_mask(row)
    try:
        mask = storage.read_extent(place)
    except StoreError as error:
        if error.code is not ErrorCode.NOT_FOUND:
            raise StoreError(error.code, error.message, Scope.BUCKET) from error
        raise InputError(f"{error.message}; `fcn verify` says what else is missing") from error
    if sha256_hex(mask) != row["mask_sha256"]:
        raise InputError(
            f"{place} is not the mask that was written; `fcn verify` says what else is damaged"
        )
    return mask
