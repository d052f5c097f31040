"""Gradient checkpointing: CPU milliseconds and peak memory of a training step, without and with it.

Each figure is that of a process of its own, which takes some steps on made-up images.
"""

import argparse
import dataclasses
import subprocess
import sys
import time

import numpy as np
import torch

from fcn.architectures import BLOCKS
from fcn.training.batch import Batch
from fcn.training.recipes import RECIPES
from fcn.training.trainer import Trainer
from fcn.weights.classes import numbered_classes
from fcn.weights.files import build_recorded
from fcn.weights.record import Checkpoint
from tests.benchmarks.processes import peak_mib
from tests.benchmarks.table import print_header, print_table

_NUM_CLASSES = 11
_STEP = "from tests.benchmarks.checkpointing import measure; measure()"


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    print_header()
    rows = []
    for network in arguments.networks:
        plain, again = (_figures(network, kind) for kind in ("plain", "again"))
        rows.append((network, *plain, *again))
    heads = ["network", "CPU ms per step", "peak RSS, MiB", "CPU ms, recomputed", "peak RSS, MiB"]
    print_table(heads, rows)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(BLOCKS))
    parser.add_argument("--crop", type=int, nargs=2, default=[240, 320])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4, help="that are timed")
    return parser.parse_args()


def _figures(network: str, kind: str) -> tuple[str, str]:
    command = [sys.executable, "-c", _STEP, *sys.argv[1:], "--networks", network, kind]
    given = subprocess.run(command, capture_output=True, text=True, check=True)
    ms, mib = given.stdout.split()
    return ms, mib


def measure() -> None:
    """Take steps with one network, and print CPU milliseconds of one and the peak of memory."""
    again = sys.argv.pop() == "again"
    arguments = _parse()
    torch.set_num_threads(1)
    record = Checkpoint(arguments.networks[-1], numbered_classes(_NUM_CLASSES))
    recipe = dataclasses.replace(RECIPES["modern"], batch_size=arguments.batch_size)
    trainer = Trainer(build_recorded(record), record, recipe, gradient_checkpointing=again)
    batch = _batch(arguments)
    trainer.step(batch, 0, 0.1)
    start = time.process_time()
    for step in range(arguments.steps):
        trainer.step(batch, step + 1, 0.1)
    ms = 1e3 * (time.process_time() - start) / arguments.steps
    print(f"{ms:.0f} {peak_mib():.0f}")


def _batch(arguments: argparse.Namespace) -> Batch:
    random, size = np.random.default_rng(0), tuple(arguments.crop)
    number = arguments.batch_size
    images = [random.integers(0, 256, (*size, 3), np.uint8) for _ in range(number)]
    truths = [random.integers(0, _NUM_CLASSES, size, np.uint8) for _ in range(number)]
    return Batch(images, truths, range(number))


if __name__ == "__main__":
    main()
