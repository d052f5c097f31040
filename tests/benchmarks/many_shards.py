"""The labelling chain with very many shards and steps that do nothing: what Ray and driver cost.

`pipeline.labelling.chain.label_shards` runs as in a job, with its plan files of 64 shards, its
replicas and its limits; only the bodies of the steps are empty, and no plan is read. A run of
400,000 shards of 256 images is one of 100 million images. It takes hours on a small machine, so
that it is watched for a while and then ended.

`--each` is the way before: every shard is an item, and a block, of one dataset.
"""

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import ray.data

from pipeline.cluster.connect import start_ray
from pipeline.cluster.data_context import set_switches
from pipeline.labelling import chain
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import Receipt, ShardGroup, ShardRow
from pipeline.labelling.shards import Shards, tasks_of
from pipeline.settings.label import LabelSettings
from tests.benchmarks.made_up import IMAGES_PER_SHARD, made_up_run
from tests.benchmarks.processes import Sample, Watch
from tests.benchmarks.table import print_header, print_table

_SAMPLE_S = 2.0


class _Fetch:
    def __init__(self, *_: object) -> None:
        pass

    def __call__(self, group: ShardGroup) -> Iterator[ShardRow]:
        return (ShardRow(shard=task["shard"], images=[]) for task in tasks_of(group))


class _Segmenter:
    def __init__(self, *_: object) -> None:
        pass

    def __call__(self, shard: ShardRow) -> ShardRow:
        return shard


class _Write:
    def __init__(self, *_: object) -> None:
        pass

    def __call__(self, shard: ShardRow) -> Receipt:
        number = IMAGES_PER_SHARD
        return Receipt(shard=shard["shard"], num_images=number, num_failed=0, errors={}, work={})


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    print_header()
    settings = LabelSettings(input="/in", output="/out", weights="random:0")
    start_ray(None)
    with Watch(os.getpid(), _SAMPLE_S, memory=True) as watch:
        started = time.monotonic()
        run = made_up_run(arguments.shards, "file:///out")
        todo = Shards(f"{run.folder}/plan", run.record.plan, range(arguments.shards))
        chain._SHARDS_PER_DATASET = arguments.dataset
        make = _each if arguments.each else _chain
        times = _times(make(run, todo, settings), started + arguments.seconds)
    _print(times, started, watch.samples)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=400_000)
    parser.add_argument("--seconds", type=float, default=300, help="after which it is ended")
    parser.add_argument("--dataset", type=int, default=16_384, help="shards of one dataset")
    parser.add_argument("--each", action="store_true", help="every shard is an item, as before")
    return parser.parse_args()


def _chain(run: Run, todo: Shards, settings: LabelSettings) -> Iterator[Receipt]:
    chain.Fetch = _Fetch
    chain.segment.Segmenter = _Segmenter
    chain.Write = _Write
    return chain.label_shards(run, todo, settings, lambda _: None)


def _each(run: Run, todo: Shards, settings: LabelSettings) -> Iterator[Receipt]:
    """Do what the chain did before it grouped shards."""
    set_switches(ray.data.DataContext.get_current(), settings.max_wait_minutes)
    items = [dict(task) for task in todo]
    rows: Any = ray.data.from_items(items, override_num_blocks=len(items))
    pool = ray.data.ActorPoolStrategy(
        size=1, max_concurrent_calls_per_actor=3, enable_true_multi_threading=True
    )
    yield from (
        rows.map(lambda task: {"shard": task["shard"], "images": []}, num_cpus=0.25)
        .map(_Segmenter, num_cpus=1.0, compute=pool)
        .map(_Write(), num_cpus=0.2)
        .iter_rows()
    )


def _times(receipts: Iterator[Receipt], end: float) -> list[float]:
    """Note when each receipt came, until a moment; a receipt may come later than that."""
    times: list[float] = []
    with closing(receipts):
        for _ in receipts:
            times.append(time.monotonic())
            if times[-1] > end:
                break
    return times


def _print(times: list[float], started: float, samples: list[Sample]) -> None:
    half = times[len(times) // 2 :]
    peak = {
        role: max((sample.memory.get((role, "anon"), 0) for sample in samples), default=0)
        for role in ("driver", "ray", "tasks")
    }
    cpu = samples[-1].cpu_s
    course = [sample.memory.get(("driver", "anon"), 0) >> 20 for sample in samples]
    tenths = [course[len(course) * tenth // 10] for tenth in range(1, 10)]
    print_table(
        ["", "figure"],
        [
            ("seconds until the first receipt", f"{times[0] - started:.1f}"),
            ("receipts", f"{len(times):,}"),
            ("shards/s from the first on", f"{len(times) / (times[-1] - times[0]):.1f}"),
            ("shards/s, second half", f"{len(half) / (half[-1] - half[0]):.1f}"),
            *((f"peak of {role}, MiB", f"{size / (1 << 20):.0f}") for role, size in peak.items()),
            ("MiB of driver, at each tenth", ", ".join(map(str, tenths))),
            *((f"CPU ms per shard, {role}", f"{1e3 * cpu[role] / len(times):.1f}") for role in cpu),
        ],
    )


if __name__ == "__main__":
    main()
