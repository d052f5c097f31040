"""Damage pictures at random and decode them: `python -m tests.fuzz_decoders --seconds 120`.

Every file is decoded or refused with a code; anything else that is raised is printed and is exit
code 1. A decoder that crashes takes this process along: the last file is in --keep.
"""

import argparse
import collections
import io
import random
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.errors import ImageError
from pipeline.images.decode import decode_image

_MAX_PIXELS = 1 << 22
_VALUES = (0, 1, 2, 127, 128, 254, 255)
_FORMATS: tuple[tuple[str, tuple[str, ...], tuple[dict[str, object], ...]], ...] = (
    ("PNG", ("1", "L", "P", "RGB", "RGBA", "LA"), ({},)),
    ("BMP", ("1", "L", "P", "RGB", "RGBA"), ({},)),
    ("JPEG", ("L", "RGB", "CMYK"), ({}, {"progressive": True})),
    ("WEBP", ("RGB", "RGBA"), ({}, {"lossless": True})),
    ("AVIF", ("RGB",), ({},)),
    ("TIFF", ("1",), ({},)),
    ("TIFF", ("L", "RGB", "CMYK"), ({"compression": "jpeg"},)),
    (
        "TIFF",
        ("L", "P", "RGB", "RGBA", "CMYK"),
        (
            {},
            *({"compression": one} for one in ("tiff_lzw", "tiff_adobe_deflate", "packbits")),
            *({"compression": one} for one in ("lzma", "zstd")),
        ),
    ),
)


def _whole() -> Iterator[tuple[str, bytes]]:
    """Write a picture in every format and kind."""
    small = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(small).resize((40, 24))
    for name, modes, options in _FORMATS:
        for mode in modes:
            for given in options:
                if given.get("compression") == "jpeg" and mode == "CMYK":
                    continue
                buffer = io.BytesIO()
                picture.convert(mode).save(buffer, name, **given)
                yield name, buffer.getvalue()


def _damaged(data: bytes, name: str, chance: random.Random) -> bytes:
    """Change up to four bytes, most of them in front; a PNG's checksums are made right again."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        place = chance.randrange(min(len(changed), chance.choice((64, 400, 1 << 20))))
        changed[place] = chance.choice((*_VALUES, chance.randrange(256), changed[place] ^ 1))
    if name == "TIFF" and chance.random() < 0.5:
        _change_tag(changed, chance)
    return _with_checksums(changed) if name == "PNG" else bytes(changed)


def _change_tag(data: bytearray, chance: random.Random) -> None:
    [directory] = struct.unpack("<I", data[4:8])
    entry = directory + 2 + 12 * chance.randrange(12)
    if entry + 12 <= len(data):
        place = entry + chance.choice((0, 2, 4, 8))
        data[place : place + 2] = struct.pack("<H", chance.randrange(1 << 16))


def _with_checksums(data: bytearray) -> bytes:
    place = 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[place + 4 : end]))
        place = end + 4
    return bytes(data)


def main() -> int:
    """Run until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzzed.bin"))
    given = parser.parse_args()
    chance, whole = random.Random(given.seed), list(_whole())
    ends: collections.Counter[str] = collections.Counter()
    until = time.monotonic() + given.seconds
    while time.monotonic() < until:
        name, data = chance.choice(whole)
        changed = _damaged(data, name, chance)
        given.keep.write_bytes(changed)
        try:
            decode_image(changed, _MAX_PIXELS)
            ends["decoded"] += 1
        except ImageError as error:
            ends[str(error.code)] += 1
        except Exception as error:  # noqa: BLE001 - it is what is looked for
            ends["raised"] += 1
            kept = given.keep.with_name(f"{given.keep.name}.{ends['raised']}")
            kept.write_bytes(changed)
            sys.stdout.write(f"{name}: {type(error).__name__}: {error}: {kept}\n")
    given.keep.unlink()
    sys.stdout.write(f"seed {given.seed}: {ends.total():,} files: {dict(ends.most_common())}\n")
    return 1 if ends["raised"] else 0


if __name__ == "__main__":
    sys.exit(main())
