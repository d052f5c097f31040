"""CPU ms per image of a replica whose network costs nothing: photographs in, mask files out.

Three callers, as Ray's actors have, and no Ray: what is left is decoding, statistics, encoding and
rows. The masks are CamVid's ground truth, so that they pack as masks of photographs do.
`py-spy record --gil` beside it says how much of the time the interpreter's lock is held.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fcn.inference.predictor import Prediction
from fcn.weights.classes import numbered_classes
from pipeline.labelling.records import ClassRecord
from pipeline.labelling.schema import ImageRow, ShardRow
from pipeline.labelling.segment import Placement, Segmenter
from pipeline.settings.label import LabelSettings
from tests.benchmarks.photos import add_images_flag, find_photos
from tests.benchmarks.processes import machine_cpu_s
from tests.benchmarks.table import print_header, print_table

_NUM_CLASSES = 32
_CALLERS = 3
_PER_SHARD = 64


class Truths:
    """Answers with masks that are there already, one after the other."""

    num_backoffs = 0
    device_seconds = 0.0

    def __init__(self, masks: Sequence[NDArray[np.uint8]]) -> None:
        """Prepare the answers.

        Args:
            masks: Class indices, all of the photographs' size.
        """
        self._next = count()
        self._answers = [_prediction(mask) for mask in masks]

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """As `fcn.inference.predictor.Predictor.predict`."""
        return [self._answers[next(self._next) % len(self._answers)] for _ in images]


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    print_header()
    photos = find_photos(arguments.images)[: arguments.number]
    shards = list(_shards([path.read_bytes() for path in photos]))
    replica = _replica([_mask_of(path) for path in photos])
    print(f"{len(photos)} photographs, {_PER_SHARD} per shard, {_CALLERS} callers\n")
    _turn(replica, shards)
    turns = [_turn(replica, shards) for _ in range(arguments.rounds)]
    rows = [[f"{one:.2f}" for one in turn] for turn in turns]
    print_table(["CPU ms per image", "images/s", "others"], rows)
    cpu_ms, images_per_s, _ = map(statistics.median, zip(*turns, strict=True))
    print(f"medians: {cpu_ms:.2f} ms, {images_per_s:.0f} images/s")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_images_flag(parser)
    parser.add_argument("--number", type=int, default=468, help="photographs to use")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def _mask_of(photo: Path) -> NDArray[np.uint8]:
    with Image.open(photo.parent.parent / "masks" / f"{photo.stem}.png") as truth:
        return np.asarray(truth).copy()


def _prediction(mask: NDArray[np.uint8]) -> Prediction:
    mask = np.minimum(mask, _NUM_CLASSES - 1)
    pixels = np.bincount(mask.ravel(), minlength=_NUM_CLASSES)
    confidence = np.where(pixels > 0, 0.5, np.nan)
    return Prediction(mask, pixels, confidence, mean_confidence=0.5)


def _replica(masks: Sequence[NDArray[np.uint8]]) -> Segmenter:
    classes = [
        ClassRecord(id=index, name=label.name, color=label.color)
        for index, label in enumerate(numbered_classes(_NUM_CLASSES))
    ]
    settings = LabelSettings(input="in", output="out", weights="random:0")
    placement = Placement(use_gpu=False, threads=2, batch_size=8)
    return Segmenter(lambda _: Truths(masks), classes, settings, placement)  # type: ignore[arg-type, return-value]  # as it is used


def _shards(files: Sequence[bytes]) -> list[list[ImageRow]]:
    rows = [
        ImageRow(
            image_id=f"{index:032x}",
            key=f"{index}.jpg",
            uri=f"file:///in/{index}.jpg",
            etag="1",
            num_bytes=len(data),
            mask_key=f"{index}.png",
            data=data,
            error_code=None,
            error_message=None,
        )
        for index, data in enumerate(files)
    ]
    return [rows[first : first + _PER_SHARD] for first in range(0, len(rows), _PER_SHARD)]


def _turn(replica: Segmenter, shards: Sequence[list[ImageRow]]) -> tuple[float, float, float]:
    """Label all shards once; returns CPU ms per image, images/s, and cores of others."""
    # The replica takes the bytes out of the rows.
    given = [
        ShardRow(shard=number, images=[{**row} for row in rows])  # type: ignore[typeddict-item]  # mypy loses the type
        for number, rows in enumerate(shards)
    ]
    number = sum(map(len, shards))
    start, cpu_s, machine_s = time.perf_counter(), time.process_time(), machine_cpu_s()
    with ThreadPoolExecutor(_CALLERS) as pool:
        done = list(pool.map(replica, given))
    took, cpu_s = time.perf_counter() - start, time.process_time() - cpu_s
    assert all(image["error_code"] is None for shard in done for image in shard["images"])
    return 1e3 * cpu_s / number, number / took, (machine_cpu_s() - machine_s - cpu_s) / took


if __name__ == "__main__":
    main()
