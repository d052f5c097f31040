"""LZW in TIFF (TIFF 6.0, section 13): what its decoder does not check.

imagecodecs takes the first code after a clear as a byte, whatever it is. A larger one lets it read
what an earlier table, or nothing, has left in memory: foreign bytes for pixels, or a crash.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ErrorCode, ImageError

_CLEAR, _END = 256, 257
_FIRST_BITS = 9
# Codes after a clear, at most, before the decoder's table is full.
_MAX_CODES = 4863
# Sizes of the table from which codes have a bit more: of the bytes' order of TIFF 6.0, and of the
# older one, which changes one code later.
_WIDENED_AT = {"big": (511, 1023, 2047), "little": (512, 1024, 2048)}


def check_lzw(data: bytes | bytearray) -> None:
    """Refuse a strip or tile in which a code without a meaning stands behind a clear.

    Args:
        data: Compressed.

    Raises:
        ImageError: corrupt.
    """
    order = "little" if data[:1] == b"\0" and data[1:2] and data[1] & 1 else "big"
    words = _words(data, order)
    offsets, widths = _layout(order)
    place, num_bits = 0, 8 * len(data)
    while place + _FIRST_BITS <= num_bits:
        inside = int(np.searchsorted(offsets + widths, num_bits - place, side="right"))
        codes = _codes(words, place + offsets[:inside], widths[:inside], order)
        # At the beginning there is a clear, without which the decoder refuses by itself.
        if place and codes[0] > _END:
            raise ImageError(ErrorCode.CORRUPT, f"TIFF: LZW code {codes[0]} behind a clear")
        found = np.flatnonzero((codes == _CLEAR) | (codes == _END))
        if not found.size or codes[found[0]] == _END:
            return
        place += int(offsets[found[0]] + widths[found[0]])


def _words(data: bytes | bytearray, order: str) -> NDArray[np.uint32]:
    """Return the 32 bits that begin with each byte."""
    padded = data + bytes(4)
    kind = ">u4" if order == "big" else "<u4"
    return np.ndarray((len(data) + 1,), kind, padded, strides=(1,))


def _layout(order: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return offset and width in bits of the codes that follow a clear."""
    # The first one adds nothing to the table.
    sizes = 258 + np.maximum(np.arange(_MAX_CODES) - 1, 0)
    widths = _FIRST_BITS + np.searchsorted(_WIDENED_AT[order], sizes, side="right")
    return np.concatenate([[0], widths.cumsum()[:-1]]), widths


def _codes(
    words: NDArray[np.uint32], places: NDArray[np.int64], widths: NDArray[np.int64], order: str
) -> NDArray[np.int64]:
    found = words[places >> 3].astype(np.int64)
    before = places & 7
    shift = 32 - widths - before if order == "big" else before
    codes: NDArray[np.int64] = (found >> shift) & ((1 << widths) - 1)
    return codes
