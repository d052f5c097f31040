"""TIFF: read by tifffile, whose samples are those that the file's tags describe.

Pillow maps a TIFF to a picture by its bits and colours alone, and passes over what else the tags
say (planes, the sense of white, the scale of a palette, 12 bits); see docs/decisions.md.
"""

import io
import logging
import struct

import numpy as np
import simplejpeg
from imagecodecs import bitorder_decode
from numpy.typing import NDArray
from PIL import Image
from tifffile import TIFF, TiffFile, TiffPage

from pipeline.errors import ErrorCode, ImageError
from pipeline.images import tiff_layout as layout
from pipeline.images.colour import premultiplied_over_white, to_rgb
from pipeline.images.jpeg_header import check_kind, named_colours, read_frame
from pipeline.images.jpeg_scans import check_complete, check_scans
from pipeline.images.lzw import check_lzw
from pipeline.images.tiff_directory import directory_end
from pipeline.images.tiff_ycbcr import unpack_subsampled

# What it logs of odd files it raises as well, or `tiff_layout` refuses.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_IMAGE_LENGTH = 257
_ORIENTATION = 274
_CONTIGUOUS = 1
# By what a JPEG calls its colours: what its TIFF may call them.
_COLOURS_OF = {
    "RGB": (layout.RGB,),
    "YCbCr": (layout.YCBCR,),
    "RGB or CMYK": (layout.RGB, layout.SEPARATED),
    "YCCK": (layout.SEPARATED,),
    "grey or YCbCr": (layout.BLACK_IS_ZERO, layout.YCBCR),
}
# What simplejpeg decodes each colour space to, without converting more than it must.
_COLOURS_TO = {"Gray": "GRAY", "CMYK": "CMYK", "YCCK": "CMYK"}


class TiffPicture:
    """A TIFF of which the first directory is read."""

    def __init__(self, data: bytes) -> None:
        """Read the first directory and judge it.

        Args:
            data: The file.

        Raises:
            ImageError: It is of a kind that is not read.
        """
        end = directory_end(data)
        if end > len(data):
            raise ImageError(
                ErrorCode.TRUNCATED,
                f"TIFF of {len(data)} bytes ends early: its directory reaches to byte {end}",
            )
        self._data = data
        page = TiffFile(io.BytesIO(data)).pages.first
        assert isinstance(page, TiffPage), "the first page is no page"
        self._page = page

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) as stored."""
        return self._page.imagelength, self._page.imagewidth

    @property
    def orientation(self) -> object:
        """What the tag of EXIF and TIFF says: whatever it is, or None."""
        return self._page.tags.valueof(_ORIENTATION)

    def decode(self) -> NDArray[np.uint8]:
        """Decode to RGB of shape (H, W, 3), as stored."""
        layout.check_layout(self._page)
        places = layout.segment_places(self._page, len(self._data))
        for place, (offset, length) in enumerate(places):
            segment = self._data[offset : offset + length]
            if self._page.compression == layout.JPEG:
                _check_jpeg(self._page, place, segment)
            if self._page.compression == layout.LZW:
                check_lzw(bitorder_decode(segment) if self._page.fillorder == 2 else segment)
            _check_tile(self._page, place, segment)
        if layout.is_subsampled(self._page):
            return _by_pillow(self._page, unpack_subsampled(self._page, self._data, places))
        return _to_rgb(self._page, self._samples())

    def _samples(self) -> NDArray[np.uint16]:
        try:
            return _samples(self._page)
        except RuntimeError:
            # Some decoders stop where a last strip has as many rows as the others, which TIFF 6.0
            # leaves open, and libtiff reads. Such a file is read as that much higher.
            page = _with_whole_strips(self._page, self._data)
            if page is None:
                raise
            return _samples(page)[: self._page.imagelength]


def _with_whole_strips(page: TiffPage, data: bytes) -> TiffPage | None:
    """Return the page as if its picture ended with its last strip; None if it does."""
    number, rows_left = divmod(page.imagelength, page.rowsperstrip)
    if page.is_tiled or not number or not rows_left:
        return None
    tag = page.tags[_IMAGE_LENGTH]
    letter = page.parent.byteorder + tag.dataformat[-1]
    try:
        height = struct.pack(letter, (number + 1) * page.rowsperstrip)
    except struct.error:  # of 16 bits, which hold no more
        return None
    end = tag.valueoffset + len(height)
    higher = TiffFile(io.BytesIO(data[: tag.valueoffset] + height + data[end:])).pages.first
    assert isinstance(higher, TiffPage), "the first page is no page"
    return higher


def _check_jpeg(page: TiffPage, place: int, segment: bytes) -> None:
    """Refuse what libjpeg warns of, and libtiff: the decoder of TIFFs does not tell."""
    tables = page.jpegtables
    data = tables[:-2] + segment[2:] if tables else segment
    check_kind(data)
    _check_colours(page, data)
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    rows, columns = layout.segment_size(page, place)
    # The last strip may be as long as the others.
    most = rows if page.is_tiled else page.rowsperstrip
    if not rows <= height <= most or width != columns:
        raise ImageError(
            ErrorCode.CORRUPT, f"TIFF: a JPEG of {height} x {width} pixels for {rows} x {columns}"
        )
    frame, expected = read_frame(data), layout.segment_samples(page)
    if frame is None or frame.num_components != expected:
        found = frame and frame.num_components
        raise ImageError(
            ErrorCode.CORRUPT, f"TIFF: a JPEG of {found} components for {expected} samples"
        )
    check_scans(data, height * width)
    simplejpeg.decode_jpeg(data, _COLOURS_TO.get(colours, "RGB"))
    check_complete(data)


def _check_colours(page: TiffPage, data: bytes) -> None:
    """Refuse a JPEG whose own marker names other colours than the TIFF: readers differ."""
    named = named_colours(data)
    if named is not None and page.photometric not in _COLOURS_OF[named]:
        raise ImageError(
            ErrorCode.UNSUPPORTED_MODE,
            f"TIFF: a JPEG that calls its colours {named}, in a file that calls them "
            f"{layout.colours_of(page)}; save it anew",
        )


def _check_tile(page: TiffPage, place: int, segment: bytes) -> None:
    """Refuse a tile at the edge that holds the samples of the picture only: it is cut off.

    tifffile takes as many samples for all that is wanted, in rows of another length.
    """
    if page.compression == layout.JPEG or not layout.reaches_over(page, place):
        return
    ordered = bitorder_decode(segment) if page.fillorder == 2 else segment
    whole = layout.decoded_bytes(page, place)
    # No more than that: a few bytes may unpack to any number.
    held = len(TIFF.DECOMPRESSORS[page.compression](ordered, out=whole))
    if held < whole:
        raise ImageError(ErrorCode.CORRUPT, f"TIFF: tile {place} holds {held} bytes of {whole}")


def _samples(page: TiffPage) -> NDArray[np.uint16]:
    """Decode the samples: (H, W, S), each as the file has it."""
    found = page.asarray(squeeze=False, maxworkers=1).reshape(page.shaped)
    if page.planarconfig == _CONTIGUOUS or page.samplesperpixel == 1:
        samples = found.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
    else:
        samples = np.moveaxis(found[:, 0, :, :, 0], 0, -1)
    return samples


def _to_rgb(page: TiffPage, samples: NDArray[np.uint16]) -> NDArray[np.uint8]:
    if page.photometric == layout.PALETTE:
        return _look_up(page, samples[..., 0])
    values = _high_byte(samples, page.bitspersample)
    colours = values[..., : layout.COLOURS[page.photometric]]
    if page.photometric == layout.WHITE_IS_ZERO:
        colours = 255 - colours
    if colours.shape[-1] == 1:
        colours = np.repeat(colours, 3, axis=-1)
    if page.photometric in (layout.SEPARATED, layout.CIELAB) or _is_raw_ycbcr(page):
        return _by_pillow(page, colours)
    return _over_white(page, np.ascontiguousarray(colours), values)


def _high_byte(samples: NDArray[np.uint16], bits: int) -> NDArray[np.uint8]:
    """Spread fewer than 8 bits over the range, take the upper 8 of more."""
    if bits == 8:
        return samples.astype(np.uint8, copy=False)
    if bits > 8:
        return (samples >> (bits - 8)).astype(np.uint8)
    return samples.astype(np.uint8) * np.uint8(255 // ((1 << bits) - 1))


def _over_white(
    page: TiffPage, colours: NDArray[np.uint8], values: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    if values.shape[-1] in (1, 3):
        return colours
    kind = page.extrasamples[0] if page.extrasamples else layout.ALPHA
    alpha = values[..., layout.COLOURS[page.photometric]]
    if kind == layout.UNSPECIFIED:
        return colours
    if kind == layout.PREMULTIPLIED:
        return premultiplied_over_white(colours, alpha)
    return np.asarray(to_rgb(Image.fromarray(np.dstack([colours, alpha]), "RGBA")))


def _is_raw_ycbcr(page: TiffPage) -> bool:
    return page.photometric == layout.YCBCR and page.compression != layout.JPEG


def _by_pillow(page: TiffPage, colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    mode = {layout.SEPARATED: "CMYK", layout.CIELAB: "LAB", layout.YCBCR: "YCbCr"}[page.photometric]
    size = (page.imagewidth, page.imagelength)
    # The raw mode LAB turns TIFF's signed a* and b* into Pillow's.
    image = Image.frombytes(mode, size, np.ascontiguousarray(colours).tobytes(), "raw", mode)
    return np.asarray(to_rgb(image))


def _look_up(page: TiffPage, indices: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Look colours up. A palette without any value over 255 is one of bytes, as libtiff sees it."""
    palette = page.colormap
    if palette is None or palette.shape != (3, 1 << page.bitspersample):
        shape = None if palette is None else palette.shape
        raise ImageError(
            ErrorCode.CORRUPT, f"TIFF: a palette of shape {shape} for {page.bitspersample} bits"
        )
    in_bytes = palette if palette.max() < 256 else palette >> 8
    # tifffile gives single bits as truth values, which would select and not look up.
    return np.ascontiguousarray(in_bytes.T.astype(np.uint8)[indices.astype(np.uint16)])
