"""PNGs of every kind, written by hand after the PNG specification: no reader has a part in them."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# 8.2: first row, first column, and the steps between rows and columns of the seven passes.
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
_ADAM7 = (*_ADAM7, (1, 0, 2, 1))


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    """Write a chunk; with a checksum of its own, if one is given."""
    right = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I4s", len(content), kind) + content + struct.pack(">I", right)


def write_png(
    samples: NDArray[Any],
    depth: int,
    colour_type: int,
    chunks: Sequence[bytes] = (),
    *,
    interlaced: bool = False,
) -> bytes:
    """Write samples of shape (H, W, S) as a PNG; `chunks` stand before the pixels."""
    rows = list(packed_rows(samples, depth, interlaced=interlaced))
    return with_rows(rows, samples, depth, colour_type, chunks, interlaced=interlaced)


def with_rows(
    rows: Sequence[bytes],
    samples: NDArray[Any],
    depth: int,
    colour_type: int,
    chunks: Sequence[bytes] = (),
    *,
    interlaced: bool = False,
) -> bytes:
    """Write a PNG of the samples' shape that holds these rows, be they too few."""
    height, width, _ = samples.shape
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, int(interlaced))
    packed = zlib.compress(b"".join(rows))
    half = len(packed) // 2
    return b"".join(
        (
            SIGNATURE,
            chunk(b"IHDR", header),
            *chunks,
            chunk(b"IDAT", packed[:half]),
            chunk(b"IDAT", packed[half:]),
            chunk(b"IEND", b""),
        )
    )


def packed_rows(samples: NDArray[Any], depth: int, *, interlaced: bool) -> Iterator[bytes]:
    """Pack samples as the rows of a PNG, each with its filter: none."""
    for top, left, down, across in _ADAM7 if interlaced else ((0, 0, 1, 1),):
        for row in samples[top::down, left::across]:
            if row.size:
                yield b"\0" + _pack(row.ravel(), depth)


def _pack(row: NDArray[Any], depth: int) -> bytes:
    if depth >= 8:
        return row.astype(f">u{depth // 8}").tobytes()
    bits = row[:, None] >> np.arange(depth - 1, -1, -1) & 1
    return np.packbits(bits.ravel().astype(np.uint8)).tobytes()
