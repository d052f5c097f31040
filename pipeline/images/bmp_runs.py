"""Runs of BMP: pixels of 8 or 4 bits, run-length encoded.

Microsoft, "Bitmap Compression" (BI_RLE8, BI_RLE4): two bytes are a run, or, where the first is 0,
an end of the row or of the picture, a step to the right and up, or pixels as they are. What is
stepped over has colour 0. Pillow's decoder loses its place at empty rows and at odd steps.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ErrorCode, ImageError

_END_OF_ROW, _END, _STEP = 0, 1, 2


def decode_runs(data: bytes, bits: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode the runs of a picture.

    Args:
        data: The file, from the first run on.
        bits: 8 or 4, per pixel.
        size: (height, width).

    Returns:
        Indices of shape (H, W), the lowest row first, as they are stored.

    Raises:
        ImageError: truncated where there is no end of the picture, corrupt where a run is outside.
    """
    found = np.zeros(size, np.uint8)
    row = column = place = 0
    while place + 2 <= len(data):
        number, value = data[place : place + 2]
        place += 2
        if number == 0 and value == _END:
            return found
        if number == 0 and value == _END_OF_ROW:
            row, column = row + 1, 0
        elif number == 0 and value == _STEP:
            right, up = data[place : place + 2].ljust(2, b"\0")
            row, column, place = row + up, column + right, place + 2
        else:
            end = place if number else place + -(-value * bits // 16) * 2
            pixels = _unpacked(data[place:end] or bytes([value]) * number, bits)
            _put(found, row, column, pixels[: number or value])
            column, place = column + (number or value), end
    raise ImageError(ErrorCode.TRUNCATED, f"BMP of runs that do not end within {len(data)} bytes")


def _unpacked(packed: bytes, bits: int) -> NDArray[np.uint8]:
    """Return a pixel for each byte, or for each half of one, the upper first."""
    values = np.frombuffer(packed, np.uint8)
    return values if bits == 8 else np.stack([values >> 4, values & 0xF], axis=-1).ravel()


def _put(found: NDArray[np.uint8], row: int, column: int, pixels: NDArray[np.uint8]) -> None:
    height, width = found.shape
    if row >= height or column + len(pixels) > width:
        raise ImageError(
            ErrorCode.CORRUPT,
            f"BMP: a run of {len(pixels)} pixels at row {row} and column {column} of a picture of "
            f"{height} x {width}",
        )
    found[row, column : column + len(pixels)] = pixels
