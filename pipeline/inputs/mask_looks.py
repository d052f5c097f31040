"""What looks like a mask: somebody has named the folder of the ground truth as input."""

import io
from collections.abc import Iterable

from PIL import Image

from pipeline.errors import ImageError, StoreError
from pipeline.images import png
from pipeline.images.damage import honest_errors
from pipeline.images.formats import sniff
from pipeline.inputs.nothing import Place
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage

# So many files are looked at.
LOOKED_AT = 8
# A photograph in grey has more values, and masks are small: what is larger is taken for none.
_MAX_VALUES = 31
_MAX_BYTES = 4 << 20
_MAX_PIXELS = 32 << 20


def all_masks(storage: Storage, some: Iterable[Place]) -> bool:
    """Look whether PNGs have a palette, or are grey with few values.

    Args:
        storage: As it reads the input.
        some: The files.
    """
    return all(_is_mask(storage, *one) for one in some)


def _is_mask(storage: Storage, place: Extent, version: str | None) -> bool:
    try:
        data = storage.read_version_of(place, version, _MAX_BYTES)
        return sniff(data) == "PNG" and _looks_like_one(data)
    except (StoreError, ImageError):
        # Whatever is wrong with it, its row will say so.
        return False


def _looks_like_one(data: bytes) -> bool:
    read, (height, width) = png.read_png(data), png.read_size(data)
    if read.colour_type == png.PALETTE:
        return True
    if read.colour_type != png.GREY or read.depth > 8 or height * width > _MAX_PIXELS:
        return False
    with honest_errors(data, "PNG"), Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        return image.getcolors(_MAX_VALUES) is not None
