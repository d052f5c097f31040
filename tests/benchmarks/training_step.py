"""CPU milliseconds of a step of `Trainer` over those of the bare step, images in memory.

What training costs beside the network: stacking, preprocessing, the loss with class weights, the
optimizer, the running mean. Both take turns in one process, and what counts is the process's CPU
time, since clocks lie on shared machines; `training` measures the whole job by the clock.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from fcn.training.batch import Batch
from fcn.training.recipes import RECIPES
from fcn.training.trainer import Trainer
from fcn.weights.classes import numbered_classes
from fcn.weights.files import build_recorded
from fcn.weights.record import Checkpoint
from tests.benchmarks.table import print_header, print_table

_NUM_CLASSES = 11
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    torch.set_num_threads(arguments.threads)
    print_header()
    ours, bare = _trainer_step(arguments), _bare_step(arguments)
    for warm in (bare, ours):
        _cpu_ms(warm, 2)
    rows = []
    for _ in range(arguments.rounds):
        before, ms, after = (_cpu_ms(step, arguments.steps) for step in (bare, ours, bare))
        rows.append((before, ms, after, (before + after) / 2 / ms))
    print_table(
        ["bare, CPU ms per step", "Trainer", "bare again", "bare over Trainer"],
        [[f"{a:.1f}", f"{b:.1f}", f"{c:.1f}", f"{share:.3f}"] for a, b, c, share in rows],
    )
    print(f"median: {statistics.median(row[-1] for row in rows):.3f}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="fcn_all_skips")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--crop", type=int, nargs=2, default=[180, 240])
    parser.add_argument("--precision", default="bf16", choices=_DTYPES)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4, help="per turn")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def _cpu_ms(step: Callable[[], None], number: int) -> float:
    start = time.process_time()
    for _ in range(number):
        step()
    return 1e3 * (time.process_time() - start) / number


def _record(arguments: argparse.Namespace) -> Checkpoint:
    return Checkpoint(arguments.network, numbered_classes(_NUM_CLASSES), width=arguments.width)


def _trainer_step(arguments: argparse.Namespace) -> Callable[[], None]:
    record, random = _record(arguments), np.random.default_rng(0)
    recipe = dataclasses.replace(RECIPES["modern"], batch_size=arguments.batch_size)
    trainer = Trainer(
        *(build_recorded(record), record, recipe),
        precision=arguments.precision,
        class_weights=[1.0] * _NUM_CLASSES,
    )
    number, size = arguments.batch_size, tuple(arguments.crop)
    images = [random.integers(0, 256, (*size, 3), np.uint8) for _ in range(number)]
    truths = [random.integers(0, _NUM_CLASSES, size, np.uint8) for _ in range(number)]
    batch = Batch(images, truths, range(number))
    return lambda: trainer.step(batch, 100, 0.1).item() and None


def _bare_step(arguments: argparse.Namespace) -> Callable[[], None]:
    network = build_recorded(_record(arguments)).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    size = (arguments.batch_size, *arguments.crop)
    images = torch.randn(size[0], 3, *size[1:]).to(memory_format=torch.channels_last)
    truths, weights = torch.randint(0, _NUM_CLASSES, size), torch.ones(_NUM_CLASSES)
    dtype = _DTYPES[arguments.precision]

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            scores = network(images)
        loss = F.cross_entropy(scores.float(), truths, weights)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    main()
