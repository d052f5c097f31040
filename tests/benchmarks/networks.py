"""Images/s and peak memory of `Predictor` for each network, beside plain loops around others.

All run in one process and in turns: each round gives every contestant one batch. `memory` is what a
batch takes beyond what the process holds before it: anonymous pages, or CUDA's allocated bytes.
Beside the networks stand torchvision's own fcn_resnet50 in a plain loop and FCN-8s as the published
definition has it, with dense transposed convolutions: both normalise, score and take the argmax.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.models.segmentation import fcn_resnet50

from fcn.architectures import ARCHITECTURES, PADDING
from fcn.inference.predictor import Predictor
from fcn.inference.preprocess import Preprocess
from fcn.weights.classes import numbered_classes
from fcn.weights.files import random_network
from fcn.weights.record import Checkpoint
from pipeline.memory import release_free_memory
from tests.benchmarks.table import print_header, print_table
from tests.fcn.references import fcn8s

_NUM_CLASSES = 21
_MIB = 1 << 20

Images = list[NDArray[np.uint8]]
Run = Callable[[Images], object]


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    print_header()
    device = _describe(arguments)
    print(
        f"{arguments.height} x {arguments.width}, {device}, {arguments.rounds} rounds\n", flush=True
    )
    contestants = dict(_contestants(arguments))
    rows = []
    for batch in arguments.batches:
        rows += _measure(contestants, batch, arguments)
    columns = ["", "batch", "images/s", "slowest", "fastest", "CPU ms per image", "memory, MiB"]
    print_table(columns, sorted(rows, key=lambda row: list(contestants).index(str(row[0]))))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(ARCHITECTURES))
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", nargs="+", default=["fp32"])
    parser.add_argument("--no-plain-loops", action="store_true")
    return parser.parse_args()


def _describe(arguments: argparse.Namespace) -> str:
    if arguments.device == "cpu":
        return f"CPU with {torch.get_num_threads()} threads"
    return torch.cuda.get_device_name()


def _contestants(arguments: argparse.Namespace) -> Iterator[tuple[str, Run]]:
    for name, precision in product(arguments.networks, arguments.precision):
        paddings = ("paper", "tight") if PADDING in ARCHITECTURES[name] else ("paper",)
        for padding in paddings:
            record = Checkpoint(
                name, numbered_classes(_NUM_CLASSES), padding=padding, weights_sha256="random:0"
            )
            predictor = Predictor(
                random_network(record, 0), record, device=arguments.device, precision=precision
            )
            label = f"{name} {padding}" if len(paddings) > 1 else name
            yield f"{label} {precision}", predictor.predict
    if not arguments.no_plain_loops:
        yield "plain loop: torchvision fcn_resnet50", _torchvision(arguments.device)
        yield "plain loop: dense FCN-8s", _dense_fcn8s(arguments.device)


def _torchvision(device: str) -> Run:
    network = fcn_resnet50(weights=None, weights_backbone=None, num_classes=_NUM_CLASSES)
    network = network.eval().to(device)
    return _plain_loop(lambda images: network(images)["out"], "fcn_resnet50", device)


def _dense_fcn8s(device: str) -> Run:
    record = Checkpoint("fcn8s_vgg16", numbered_classes(_NUM_CLASSES), weights_sha256="random:0")
    weights = random_network(record, 0).to(device).state_dict()
    return _plain_loop(lambda images: fcn8s(weights, images), "fcn8s_vgg16", device)


def _plain_loop(score: Callable[[torch.Tensor], torch.Tensor], name: str, device: str) -> Run:
    preprocess = Preprocess(Checkpoint(name, numbered_classes(_NUM_CLASSES))).to(device)

    @torch.inference_mode()
    def run(images: Images) -> NDArray[np.uint8]:
        batch = torch.from_numpy(np.stack(images)).to(device)
        scores = score(preprocess(batch).contiguous())
        return scores.argmax(dim=1).to(torch.uint8).cpu().numpy()

    return run


def _measure(
    contestants: dict[str, Run], batch: int, arguments: argparse.Namespace
) -> list[list[object]]:
    generator = np.random.default_rng(0)
    shape = (arguments.height, arguments.width, 3)
    images = [generator.integers(0, 256, shape, np.uint8) for _ in range(batch)]
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    cpu_s: dict[str, list[float]] = {name: [] for name in contestants}
    memory = {name: _peak_bytes(run, images, arguments.device) for name, run in contestants.items()}
    for _, (name, run) in product(range(arguments.rounds), contestants.items()):
        start, cpu_start = time.perf_counter(), time.process_time()
        run(images)
        seconds[name].append(time.perf_counter() - start)
        cpu_s[name].append(time.process_time() - cpu_start)
    return [
        [
            name,
            batch,
            *(f"{batch / choose(seconds[name]):.2f}" for choose in (statistics.median, max, min)),
            f"{1e3 * statistics.median(cpu_s[name]) / batch:.0f}",
            f"{memory[name] / _MIB:.0f}",
        ]
        for name in contestants
    ]


def _peak_bytes(run: Run, images: Images, device: str) -> int:
    """Run once, also to warm up, and give the memory that it took at its largest."""
    if device != "cpu":
        run(images)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(images)
        return torch.cuda.max_memory_allocated() - before
    release_free_memory()
    # Linux: 5 sets the peak to what the process holds now.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run(images)
    return _status("VmHWM") - before


def _status(field: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        [line] = [line for line in file if line.startswith(field)]
    return int(line.split()[1]) << 10


if __name__ == "__main__":
    main()
