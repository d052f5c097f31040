"""Where the first directory of a TIFF ends: what lies beyond the file was cut off."""

import struct

# TIFF 6.0, section 2, and BigTIFF: bytes of a value by its type.
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_BYTES |= {16: 8, 17: 8, 18: 8}
# Size, bits, colours, strips, tiles, palette and tables: without them there is no picture. What
# other tags hold may be missing.
_NEEDED = frozenset(
    (256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339)
) | {347, 530}


def directory_end(data: bytes) -> int:
    """Find where the first directory, and the values that it needs, ends.

    Args:
        data: The file.

    Returns:
        The offset behind it, which is more than there are bytes in a file that was cut off.
    """
    order = "<" if data.startswith(b"II") else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    head, count, entry = ("Q", "Q", "HHQQ") if big else ("I", "H", "HHII")
    try:
        start = int(struct.unpack_from(order + head, data, 8 if big else 4)[0])
        number = int(struct.unpack_from(order + count, data, start)[0])
    except struct.error:
        return len(data) + 1
    first, size = start + struct.calcsize(order + count), struct.calcsize(order + entry)
    end = first + number * size
    if end > len(data):
        return end
    entries = struct.iter_unpack(order + entry, data[first:end])
    return max([end, *(_values_end(*fields, inline=8 if big else 4) for fields in entries)])


def _values_end(tag: int, kind: int, number: int, place: int, *, inline: int) -> int:
    num_bytes = number * _BYTES.get(kind, 0)
    return place + num_bytes if tag in _NEEDED and num_bytes > inline else 0
