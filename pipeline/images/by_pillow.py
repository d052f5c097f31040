"""Pictures that Pillow opens: JPEG, PNG, WebP, AVIF."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from pipeline.errors import ErrorCode, ImageError
from pipeline.images import png
from pipeline.images.avif import refuse_cropped
from pipeline.images.colour import to_rgb
from pipeline.images.damage import DAMAGE
from pipeline.images.jpeg import decode_jpeg
from pipeline.images.jpeg_header import check_kind, without_metadata
from pipeline.images.opening import open_picture
from pipeline.images.webp import read_webp_size

_ORIENTATION = 0x0112
# RGBA, and what it is made of.
_BYTES_PER_PIXEL = 8


class PillowPicture:
    """A JPEG, WebP or AVIF of which the header is read."""

    def __init__(self, data: bytes, name: str) -> None:
        """Read the header.

        Args:
            data: The encoded image.
            name: The name of its format, as Pillow calls it.

        Raises:
            ImageError: It is of a kind that is not read.
        """
        if name == "JPEG":
            check_kind(data)
        if name == "AVIF":
            refuse_cropped(data)
        self._data = data
        self._name = name
        self._known_size = read_webp_size(data) if name == "WEBP" else None
        self.size = self._known_size or (self._image.height, self._image.width)

    @cached_property
    def _image(self) -> Image.Image:
        try:
            return open_picture(self._data, self._name)
        except DAMAGE as error:
            if self._name == "JPEG":
                return open_picture(without_metadata(self._data), self._name)
            self._mind_memory(self._known_size, error)
            raise

    @property
    def orientation(self) -> object:
        """What EXIF says of it, and nothing else: whatever it is, or None."""
        return _exif_orientation(self._image.info.get("exif"))

    def decode(self) -> NDArray[np.uint8]:
        """Decode to RGB of shape (H, W, 3), as stored."""
        if isinstance(self._image, JpegImageFile):
            pixels = decode_jpeg(self._image, self._data)
            if pixels is not None:
                return pixels
        return self.decode_by_pillow()

    def decode_by_pillow(self) -> NDArray[np.uint8]:
        """Decode as `decode`; what libjpeg warns of is in the pixels."""
        try:
            self._image.load()
        except DAMAGE as error:
            self._mind_memory(self.size, error)
            raise
        if (self._image.height, self._image.width) != self.size:
            raise ImageError(ErrorCode.CORRUPT, f"{self._name}: a header of another size")
        return np.asarray(to_rgb(self._image))

    def _mind_memory(self, size: tuple[int, int] | None, error: BaseException) -> None:
        """Find out whether it was memory that a codec lacked: those of WebP and AVIF don't say."""
        if self._name != "JPEG" and size is not None and not _is_there_room(size):
            raise MemoryError from error


class PngPicture:
    """A PNG of which the header is read."""

    def __init__(self, data: bytes) -> None:
        """Read the header.

        Args:
            data: The encoded image.

        Raises:
            ImageError: There is no header.
        """
        self._data = data
        self.size = png.read_size(data)

    @cached_property
    def _read(self) -> png.Png:
        return png.read_png(self._data)

    @property
    def orientation(self) -> object:
        """What EXIF says of it, and nothing else: whatever it is, or None."""
        return _exif_orientation(self._read.exif)

    def decode(self) -> NDArray[np.uint8]:
        """Decode to RGB of shape (H, W, 3), as stored."""
        image = open_picture(self._read.data, "PNG")
        image.load()
        # A last row that holds something was there: most pictures are not unpacked twice.
        if png.is_interlaced(self._read) or not np.asarray(image)[-1].any():
            png.check_whole(self._read)
        if image.mode == "P":
            _check_palette(self._read, image)
        pixels = np.asarray(to_rgb(image))
        if self._read.transparent is None:
            return pixels
        return png.over_white(self._read, pixels, _png_samples(self._read, image))


def _is_there_room(size: tuple[int, int]) -> bool:
    """Return whether there is memory for what a decoder of a picture takes, about."""
    try:
        np.empty((*size, _BYTES_PER_PIXEL), np.uint8)
    except MemoryError:
        return False
    return True


def _exif_orientation(exif: object) -> object:
    if not isinstance(exif, bytes):
        return None
    try:
        found = Image.Exif()
        found.load(exif)
        return found.get(_ORIENTATION)
    except DAMAGE:  # damaged EXIF costs no picture: it is decoded as it is stored
        return None


def _png_samples(read: png.Png, image: Image.Image) -> NDArray[np.uint16]:
    if png.needs_samples(read):
        return png.decode_samples(read)
    samples = np.asarray(image).astype(np.uint16)
    return samples * 255 if image.mode == "1" else samples


def _check_palette(read: png.Png, image: Image.Image) -> None:
    highest = np.asarray(image).max()
    if highest >= read.num_colours:
        raise ImageError(
            ErrorCode.CORRUPT, f"PNG: colour {highest} of a palette of {read.num_colours}"
        )
