"""Label Studio's form of a mask: runs of equal bytes, packed to bits.

The form is that of thi.ng's rle-pack: 32 bits for the number of values, 5 for the size of a value
less one, four times 4 for the sizes of run lengths less one; then for each run a bit 1, two bits
that choose the size of its length, the length less one, and the value. Runs of one value have a
form of their own, which can't occur here: every pixel is four equal bytes, red to alpha.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_VALUE_BITS = 8
_LENGTH_BITS = (3, 4, 8, 16)
_CHANNELS = 4
_LONGEST = 1 << _LENGTH_BITS[-1]


def pack(mask: NDArray[np.bool_]) -> list[int]:
    """Pack a mask as `label_studio_sdk.converter.brush.mask2rle` does one of 0 and 255.

    Args:
        mask: Shape (H, W).

    Returns:
        Bytes, 0 to 255.
    """
    pixels = mask.ravel()
    ends = np.append(np.flatnonzero(pixels[1:] != pixels[:-1]) + 1, pixels.size)
    lengths = np.diff(ends, prepend=0) * _CHANNELS
    values = np.where(pixels[ends - 1], 255, 0)
    head = f"{pixels.size * _CHANNELS:032b}{_VALUE_BITS - 1:05b}"
    head += "".join(f"{bits - 1:04b}" for bits in _LENGTH_BITS)
    runs = zip(lengths.tolist(), values.tolist(), strict=True)
    bits = head + "".join(code for length, value in runs for code in _codes(length, value))
    bits += "0" * (8 - len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8, "big"))


def _codes(length: int, value: int) -> Iterator[str]:
    while length > 0:
        part = min(length, _LONGEST)
        chosen = next(at for at, bits in enumerate(_LENGTH_BITS) if part <= 1 << bits)
        yield f"1{chosen:02b}{part - 1:0{_LENGTH_BITS[chosen]}b}{value:0{_VALUE_BITS}b}"
        length -= part
