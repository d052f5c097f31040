"""TIFFs of every layout, written by hand after TIFF 6.0: no reader has a part in them."""

import itertools
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

UNCOMPRESSED, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LZMA, ZSTD = 1, 5, 8, 32946, 32773, 34925, 50000
_PACK = {
    UNCOMPRESSED: bytes,
    LZW: imagecodecs.lzw_encode,
    DEFLATE: zlib.compress,
    OLD_DEFLATE: zlib.compress,
    PACKBITS: imagecodecs.packbits_encode,
    LZMA: imagecodecs.lzma_encode,
    ZSTD: imagecodecs.zstd_encode,
}
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
COMPRESSIONS = tuple(_PACK)
_SHORT, _LONG, _UNDEFINED, _LONG8 = 3, 4, 7, 16


@dataclass(frozen=True)
class Layout:
    """How samples are laid out in the file.

    `segment` is the height and width of a tile; strips have a width of None.
    """

    bits: int
    photometric: int
    compression: int = UNCOMPRESSED
    planar: bool = False
    order: str = "<"
    segment: tuple[int, int | None] = (1000, None)
    big: bool = False
    predictor: int = 1
    extra: Sequence[int] = ()
    tags: dict[int, Sequence[int]] = field(default_factory=dict)


def write_tiff(samples: NDArray[Any], layout: Layout) -> bytes:
    """Write samples of shape (H, W, S) as a TIFF."""
    packed = [pack(one, layout.compression) for one in segments_of(samples, layout)]
    if layout.tags.get(266) == [2]:  # fill order: the first pixel is in a byte's lowest bit
        packed = [one.translate(_REVERSED) for one in packed]
    return assemble(samples.shape, layout, packed)


def pack(segment: bytes, compression: int) -> bytes:
    """Compress the bytes of a strip or tile."""
    return bytes(_PACK[compression](segment))


def assemble(shape: tuple[int, ...], layout: Layout, packed: Sequence[bytes]) -> bytes:
    """Put the header, the strips or tiles, and the directory together."""
    start = 16 if layout.big else 8
    offsets = list(itertools.accumulate(map(len, packed[:-1]), initial=start))
    body = b"".join(packed)
    place = start + len(body) + (start + len(body)) % 2
    tags = _tags(shape, layout, offsets, [len(one) for one in packed])
    head = b"II" if layout.order == "<" else b"MM"
    if layout.big:
        head += struct.pack(layout.order + "HHHQ", 43, 8, 0, place)
    else:
        head += struct.pack(layout.order + "HI", 42, place)
    return (head + body).ljust(place, b"\0") + _directory(tags, layout, place)


def segments_of(samples: NDArray[Any], layout: Layout) -> Iterator[bytes]:
    """Lay the samples of each strip or tile out in bytes."""
    planes = np.moveaxis(samples, -1, 0)[..., None] if layout.planar else samples[None]
    height, width = samples.shape[:2]
    rows, columns = layout.segment
    for plane in planes:
        for top in range(0, height, rows):
            for left in range(0, width, columns or width):
                part = plane[top : top + rows, left : left + (columns or width)]
                if columns:
                    missing = ((0, rows - part.shape[0]), (0, columns - part.shape[1]), (0, 0))
                    part = np.pad(part, missing)
                yield _pack_bits(_predict(part, layout), layout)


def _predict(part: NDArray[Any], layout: Layout) -> NDArray[Any]:
    if layout.predictor == 1:
        return part
    wide = part.astype(np.int64)
    wide[:, 1:] = wide[:, 1:] - wide[:, :-1]
    return wide & ((1 << layout.bits) - 1)


def _pack_bits(part: NDArray[Any], layout: Layout) -> bytes:
    rows = part.reshape(part.shape[0], -1)
    if layout.bits in (8, 16, 32):
        return rows.astype(f"{layout.order}u{layout.bits // 8}").tobytes()
    bits = rows[..., None].astype(np.int64) >> np.arange(layout.bits - 1, -1, -1) & 1
    return np.packbits(bits.reshape(rows.shape[0], -1).astype(np.uint8), axis=1).tobytes()


def _tags(
    shape: tuple[int, ...], layout: Layout, offsets: list[int], lengths: list[int]
) -> dict[int, tuple[int, Sequence[int]]]:
    height, width, num_samples = shape
    rows, columns = layout.segment
    places = {324: offsets, 325: lengths} if columns else {273: offsets, 279: lengths}
    size = {322: [columns], 323: [rows]} if columns else {278: [min(rows, height)]}
    short = {
        258: [layout.bits] * num_samples,
        259: [layout.compression],
        262: [layout.photometric],
        277: [num_samples],
        284: [2 if layout.planar else 1],
        **({317: [layout.predictor]} if layout.predictor != 1 else {}),
        **({338: layout.extra} if layout.extra else {}),
        **layout.tags,
    }
    long = _LONG8 if layout.big else _LONG
    return {
        **{tag: (_LONG, values) for tag, values in {256: [width], 257: [height], **size}.items()},
        **{tag: (_SHORT, values) for tag, values in short.items()},
        **({347: (_UNDEFINED, short[347])} if 347 in short else {}),
        **{tag: (long, values) for tag, values in places.items()},
    }


def _directory(tags: dict[int, tuple[int, Sequence[int]]], layout: Layout, place: int) -> bytes:
    count, entry, inline = ("Q", "HHQ", 8) if layout.big else ("H", "HHI", 4)
    size = struct.calcsize(layout.order + entry) + inline
    end = place + struct.calcsize(layout.order + count) + len(tags) * size + inline
    entries, beyond = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        letter = {_SHORT: "H", _LONG: "I", _UNDEFINED: "B", _LONG8: "Q"}[kind]
        content = struct.pack(f"{layout.order}{len(values)}{letter}", *values)
        entries += struct.pack(layout.order + entry, tag, kind, len(values))
        if len(content) <= inline:
            entries += content.ljust(inline, b"\0")
        else:
            entries += struct.pack(layout.order + ("Q" if layout.big else "I"), end + len(beyond))
            beyond += content
    number = struct.pack(layout.order + count, len(tags))
    return number + entries + bytes(inline) + beyond
