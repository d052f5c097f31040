"""Label Studio's form of a mask: runs of equal bytes, packed to bits.

The form is that of thi.ng's rle-pack: 32 bits for the number of values, 5 for the size of a value
less one, four times 4 for the sizes of run lengths less one; then for each run a bit 1, two bits
that choose the size of its length, the length less one, and the value. Behind a bit 0 there are as
many values as the length says, one by one: Label Studio's editor writes some so, we none, since
every pixel is four equal bytes here, red to alpha.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_VALUE_BITS = 8
_LENGTH_BITS = (3, 4, 8, 16)
_CHANNELS = 4
_LONGEST = 1 << _LENGTH_BITS[-1]
# As bits they are 32 bytes each.
_RUNS_AT_A_TIME = 100_000
# Of the edge of a stroke, which is smoothed, what is covered at least by half.
_COVERED = 128

_Numbers = NDArray[np.int64]


def pack(mask: NDArray[np.bool_]) -> list[int]:
    """Pack a mask as `label_studio_sdk.converter.brush.mask2rle` does one of 0 and 255.

    Args:
        mask: Shape (H, W).

    Returns:
        Bytes, 0 to 255.
    """
    pixels = mask.ravel()
    ends = np.append(np.flatnonzero(pixels[1:] != pixels[:-1]) + 1, pixels.size)
    lengths, values = _cut(np.diff(ends, prepend=0) * _CHANNELS, pixels[ends - 1] * 255)
    head = f"{pixels.size * _CHANNELS:032b}{_VALUE_BITS - 1:05b}"
    head += "".join(f"{bits - 1:04b}" for bits in _LENGTH_BITS)
    starts = range(0, lengths.size, _RUNS_AT_A_TIME)
    some = (slice(start, start + _RUNS_AT_A_TIME) for start in starts)
    runs = [_codes(lengths[one], values[one]) for one in some]
    bits = np.concatenate([np.array(list(head), np.uint8), *runs])
    return np.packbits(np.append(bits, np.zeros(8 - bits.size % 8, np.uint8))).tolist()


def unpack(packed: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Unpack a mask: the pixels whose alpha is at least half.

    Args:
        packed: Bytes, 0 to 255.
        size: (height, width) of the image.

    Returns:
        Shape (H, W).

    Raises:
        ValueError: They are none of this form, or of another size.
    """
    bits = _Bits(bytes(packed))
    number = bits.read(32)
    height, width = size
    if number != height * width * _CHANNELS:
        raise ValueError(f"{number:,} values in all for {height} x {width} x {_CHANNELS}")
    value_bits = bits.read(5) + 1
    length_bits = [bits.read(4) + 1 for _ in _LENGTH_BITS]
    values = np.zeros(number, np.uint8)
    place = 0
    while place < number:
        repeats, chosen = bits.read(1), bits.read(2)
        end = place + bits.read(length_bits[chosen]) + 1
        if repeats:
            values[place:end] = bits.read(value_bits)
        else:
            values[place:end] = [bits.read(value_bits) for _ in range(place, min(end, number))]
        place = end
    return values.reshape(height, width, _CHANNELS)[..., -1] >= _COVERED


class _Bits:
    """Bits of bytes, the highest of each first."""

    def __init__(self, data: bytes) -> None:
        self._bits = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}" if data else ""
        self._place = 0

    def read(self, number: int) -> int:
        """Read a number of so many bits. Raises ValueError at the end."""
        end = self._place + number
        if end > len(self._bits):
            raise ValueError("it is cut off")
        value = int(self._bits[self._place : end], 2)
        self._place = end
        return value


def _cut(lengths: _Numbers, values: _Numbers) -> tuple[_Numbers, _Numbers]:
    """Cut runs that are longer than a length can say."""
    parts = -(-lengths // _LONGEST)
    cut = np.full(parts.sum(), _LONGEST)
    cut[np.cumsum(parts) - 1] = lengths - (parts - 1) * _LONGEST
    return cut, np.repeat(values, parts)


def _codes(lengths: _Numbers, values: _Numbers) -> NDArray[np.uint8]:
    """Write the bits of runs, a byte for each."""
    chosen = np.searchsorted([1 << bits for bits in _LENGTH_BITS], lengths)
    sizes = np.array(_LENGTH_BITS)[chosen]
    codes = (((4 + chosen) << sizes | (lengths - 1)) << _VALUE_BITS) | values
    sizes += 3 + _VALUE_BITS
    # The highest bit of each code first.
    aligned = (codes << (32 - sizes)).astype(">u4").view(np.uint8).reshape(-1, 4)
    return np.unpackbits(aligned, axis=1)[np.arange(32) < sizes[:, None]]
