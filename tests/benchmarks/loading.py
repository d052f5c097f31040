"""Loading of training images: what an image costs, and how many steps/s one trainer can be fed.

A data set of N samples, which are the photographs of a folder over and over, is loaded step by
step as a worker does it, and nothing is trained. CPU time is that of all processes below this one,
Ray's included.
"""

import argparse
import dataclasses
import time

import psutil
import pyarrow as pa
import ray

from fcn.training.recipes import RECIPES
from pipeline.cluster.connect import start_ray
from pipeline.images.augment import Augment
from pipeline.images.ground_truth import Coding
from pipeline.inputs.data_set import Asked, as_table, open_data_set
from pipeline.store.storage import Storage
from pipeline.store.uri import normalise_uri
from pipeline.training.ingest import Load, Reader, Share, steps
from tests.benchmarks.table import print_header, print_table

_WARM_UP_STEPS = 40


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    print_header()
    start_ray(None)
    rows = [_measure(arguments, number) for number in arguments.samples]
    print_table(["samples", "steps/s", "ms per image", "CPU ms per image"], rows)
    ray.shutdown()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="../shared/camvid")
    parser.add_argument("--samples", type=int, nargs="+", default=[367, 1_000_000])
    parser.add_argument("--crop", type=int, nargs=2, default=[180, 240])
    parser.add_argument("--image-scale", type=float, default=0.5)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=200)
    return parser.parse_args()


def _measure(arguments: argparse.Namespace, number: int) -> list[str]:
    load, table = _load(arguments, number)
    share = Share(0, 1, arguments.batch_size)
    batches = steps(load, table, share, 0, _WARM_UP_STEPS + arguments.steps)
    for _ in range(_WARM_UP_STEPS):
        next(batches)
    began, cpu = time.monotonic(), _cpu_seconds()
    images = sum(len(batch.images) for batch in batches)
    seconds, cpu = time.monotonic() - began, _cpu_seconds() - cpu
    rate = arguments.steps / seconds
    per_image = (f"{1000 * one / images:.2f}" for one in (seconds, cpu))
    return [f"{number:,}", f"{rate:.1f}", *per_image]


def _load(arguments: argparse.Namespace, number: int) -> tuple[Load, pa.Table]:
    storage = Storage()
    data_set = open_data_set(storage, Asked(normalise_uri(arguments.data, "data"), "train"))
    samples = as_table(data_set.found.split("train"))
    table = pa.concat_tables([samples] * -(-number // samples.num_rows)).slice(0, number)
    recipes = dataclasses.asdict(RECIPES["modern"].augmentation)
    augment = Augment(**recipes | {"crop": tuple(arguments.crop)}, seen_at=arguments.image_scale)
    coding: Coding = data_set.coding
    return Load(Reader(storage, coding, 50_000_000, 8), augment, 0), table


def _cpu_seconds() -> float:
    me = psutil.Process()
    total = 0.0
    for process in (me, *me.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


if __name__ == "__main__":
    main()
