"""Subsampled YCbCr that is not compressed, as cameras write it (TIFF 6.0, section 21)."""

import numpy as np
from numpy.typing import NDArray
from tifffile import TiffPage


def unpack_subsampled(
    page: TiffPage, data: bytes, places: list[tuple[int, int]]
) -> NDArray[np.uint8]:
    """Unpack the samples; pixels of one block share their colour differences.

    Args:
        page: Uncompressed, in strips.
        data: The file.
        places: (offset, number of bytes) of each strip.

    Returns:
        YCbCr of shape (H, W, 3).

    Raises:
        ValueError: A strip holds too little.
    """
    strips = []
    for index, (offset, length) in enumerate(places):
        rows = min(page.rowsperstrip, page.imagelength - index * page.rowsperstrip)
        strips.append(_unpack_strip(page, data[offset : offset + length], rows))
    return np.concatenate(strips)


def _unpack_strip(page: TiffPage, strip: bytes, rows: int) -> NDArray[np.uint8]:
    across, down = page.subsampling or (2, 2)  # what TIFF 6.0 says where a file says nothing
    width, height = -(-page.imagewidth // across), -(-rows // down)
    unit = across * down + 2
    num_bytes = height * width * unit
    if len(strip) < num_bytes:
        raise ValueError(f"a strip of {len(strip)} bytes is truncated, {num_bytes} are needed")
    blocks = np.frombuffer(strip[:num_bytes], np.uint8).reshape(height, width, unit)
    shape = (height, width, down, across)
    luma = blocks[..., :-2].reshape(shape).transpose(0, 2, 1, 3)
    chroma = (np.broadcast_to(blocks[..., plane, None, None], shape) for plane in (-2, -1))
    planes = (luma, *(plane.transpose(0, 2, 1, 3) for plane in chroma))
    whole = [plane.reshape(height * down, width * across) for plane in planes]
    return np.stack(whole, axis=-1)[:rows, : page.imagewidth]
