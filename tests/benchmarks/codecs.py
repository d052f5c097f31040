"""CPU time and images/s of decoding photographs and encoding masks, beside Pillow.

All run in one process and in turns: each round gives every contestant all images, from one thread
and then from several. The masks are CamVid's truths. `others` are CPU cores that other processes
kept busy meanwhile.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.images.decode import DECODER, decode_by_pillow, decode_image
from pipeline.images.masks import encode_mask, encode_mask_by_pillow, make_palette
from tests.benchmarks.photos import add_images_flag, find_photos
from tests.benchmarks.processes import machine_cpu_s
from tests.benchmarks.table import print_header, print_table

_MAX_PIXELS = 1 << 30
_PALETTE = make_palette([(index, 2 * index, 255 - index) for index in range(32)])
# zlib's by way of Pillow, and zlib-ng's.
_PILLOW_LEVELS, _LEVELS = (1, 6, 9), (0, 1, 2, 6)


@dataclass(frozen=True)
class Contestant:
    """One way to decode or to encode: what it does, and what to."""

    name: str
    run: Callable[[Any], Any]
    items: Sequence[Any]


@dataclass(frozen=True)
class Turn:
    """What one contestant has taken in one round."""

    cpu_ms: float
    images_per_s: float
    others: float


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    print_header()
    print(f"{DECODER}\n{arguments.number} images, {arguments.rounds} rounds, medians\n", flush=True)
    contestants = _contestants(arguments.images, arguments.number)
    for contestant in contestants:
        _take_turn(contestant, 1)
    ways = list(product(arguments.threads, contestants))
    turns = [[_take_turn(one, threads) for threads, one in ways] for _ in range(arguments.rounds)]
    rows = [_row(way, found) for way, *found in zip(ways, *turns, strict=True)]
    print_table(["", "threads", "CPU ms per image", "images/s", "kB per image", "others"], rows)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_images_flag(parser)
    parser.add_argument("--number", type=int, default=200, help="images (default: 200)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def _contestants(images: Path, number: int) -> list[Contestant]:
    paths = find_photos(images)[:number]
    photos = [path.read_bytes() for path in paths]
    masks = [np.asarray(Image.open(_mask_of(path)).convert("L")) for path in paths]
    return [
        Contestant("decode, Pillow", lambda data: decode_by_pillow(data, _MAX_PIXELS), photos),
        Contestant("decode", lambda data: decode_image(data, _MAX_PIXELS), photos),
        *(
            _encoder("encode, Pillow", encode_mask_by_pillow, level, masks)
            for level in _PILLOW_LEVELS
        ),
        *(_encoder("encode", encode_mask, level, masks) for level in _LEVELS),
    ]


def _mask_of(photo: Path) -> Path:
    return photo.parent.parent / "masks" / f"{photo.stem}.png"


def _encoder(
    name: str,
    encode: Callable[[NDArray[np.uint8], bytes, int], bytes],
    level: int,
    masks: list[NDArray[np.uint8]],
) -> Contestant:
    return Contestant(f"{name}, level {level}", lambda mask: encode(mask, _PALETTE, level), masks)


def _take_turn(contestant: Contestant, threads: int) -> Turn:
    with ThreadPoolExecutor(threads) as pool:
        start, own, machine = time.perf_counter(), time.process_time(), machine_cpu_s()
        # What comes out is dropped at once, as in the replica, and not kept for all images.
        for _ in pool.map(lambda item: len(contestant.run(item)), contestant.items):
            pass
        seconds = time.perf_counter() - start
        own = time.process_time() - own
    others = (machine_cpu_s() - machine - own) / seconds
    number = len(contestant.items)
    return Turn(1000 * own / number, number / seconds, others)


def _row(way: tuple[int, Contestant], turns: Sequence[Turn]) -> list[object]:
    threads, contestant = way
    cpu_ms, images_per_s, others = (
        statistics.median(getattr(turn, name) for turn in turns)
        for name in ("cpu_ms", "images_per_s", "others")
    )
    size = f"{_mean_kb(contestant):.2f}" if contestant.name.startswith("encode") else ""
    return [contestant.name, threads, f"{cpu_ms:.3f}", f"{images_per_s:.0f}", size, f"{others:.2f}"]


def _mean_kb(contestant: Contestant) -> float:
    return statistics.mean(len(contestant.run(item)) for item in contestant.items) / 1000


if __name__ == "__main__":
    main()
