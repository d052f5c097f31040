"""LZW in TIFF (TIFF 6.0, section 13): what its decoder does not check.

imagecodecs takes the first code after a clear as a byte, whatever it is. A larger one lets it read
what an earlier table, or nothing, has left in memory: foreign bytes for pixels, or a crash.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ErrorCode, ImageError

_CLEAR, _END = 256, 257
# Without the last bit both are the same.
_STOPS = 0xFFFE
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
    place, num_bits = 0, 8 * len(data)
    while place + _FIRST_BITS <= num_bits:
        table = _table(order, place & 7)
        inside = int(np.searchsorted(table.ends, num_bits - place, side="right"))
        found = words[place >> 3 :][table.byte_offsets[:inside]].astype(np.uint32)
        codes = (found >> table.shifts[:inside]) & table.masks[:inside]
        # At the beginning there is a clear, without which the decoder refuses by itself.
        if place and codes[0] > _END:
            raise ImageError(ErrorCode.CORRUPT, f"TIFF: LZW code {codes[0]} behind a clear")
        stops = np.flatnonzero((codes & _STOPS) == _CLEAR)
        if not stops.size or codes[stops[0]] == _END:
            return
        place += int(table.ends[stops[0]])


def _words(data: bytes | bytearray, order: str) -> NDArray[np.uint32]:
    """Return the 32 bits that begin with each byte, as a view: a strip may be a whole picture."""
    kind = ">u4" if order == "big" else "<u4"
    return np.ndarray((len(data) + 1,), kind, data + bytes(4), strides=(1,))


@dataclass(frozen=True)
class _Table:
    """Where the codes behind a clear lie: widths follow from their number alone.

    Attributes:
        ends: Bit behind each, counted from the first bit of the first.
        byte_offsets: Byte in which each begins, counted from that of the first.
        shifts: By which the 32 bits from there are to be moved.
        masks: Of its own bits.
    """

    ends: NDArray[np.int64]
    byte_offsets: NDArray[np.int64]
    shifts: NDArray[np.uint32]
    masks: NDArray[np.uint32]


@lru_cache(maxsize=16)
def _table(order: str, first_bit: int) -> _Table:
    """Lay the codes out behind a clear that ends amid a byte."""
    # The first one adds nothing to the decoder's table.
    sizes = 258 + np.maximum(np.arange(_MAX_CODES) - 1, 0)
    widths = _FIRST_BITS + np.searchsorted(_WIDENED_AT[order], sizes, side="right")
    ends = widths.cumsum()
    places = first_bit + ends - widths
    inside = places & 7
    shifts = 32 - widths - inside if order == "big" else inside
    masks = (1 << widths) - 1
    return _Table(ends, places >> 3, shifts.astype(np.uint32), masks.astype(np.uint32))
