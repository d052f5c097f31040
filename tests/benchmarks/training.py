"""Images/s of `train` over images/s of the bare training step on images in memory.

The job is `python -m jobs train` on a data set, with one worker. Its rate is what metrics.jsonl
says of the evaluations after the first: images over seconds of training, waiting for images
included, start-up, evaluations and checkpoints left out.

The bare loop is the same network with AdamW in a dozen lines of PyTorch, with the same precision
and threads, in a process of its own as nice as Ray makes its workers, on one batch of normalised
tensors that is in memory before the clock starts. It has no running mean of the weights. Loop and
job take turns; each job is compared with the mean of the loops before and after it.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fcn.weights.classes import numbered_classes
from fcn.weights.record import Checkpoint
from tests.benchmarks.table import print_header, print_table

_NUM_CLASSES = 11
_WARM_UP_STEPS = 5
# Ray starts its workers with this niceness (RAY_worker_niceness).
_WORKER_NICENESS = 15


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    print_header()
    loops = [_bare(arguments)]
    jobs = []
    for _ in range(arguments.rounds):
        jobs.append(_job(arguments))
        loops.append(_bare(arguments))
    rows = [["bare loop", f"{loops[0]:.2f}", ""]]
    ratios = []
    for before, job, after in zip(loops, jobs, loops[1:], strict=False):
        ratios.append(2 * job / (before + after))
        rows += [["job", f"{job:.2f}", f"{ratios[-1]:.3f}"], ["bare loop", f"{after:.2f}", ""]]
    print_table(["in turns", "images/s", "efficiency"], rows)
    print(f"median: {statistics.median(ratios):.3f}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/camvid"))
    parser.add_argument("--network", default="fcn_all_skips")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--crop", type=int, nargs=2, default=[180, 240])
    parser.add_argument("--image-scale", type=float, default=0.5)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=2.0, help="of training per round")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def _job(arguments: argparse.Namespace) -> float:
    with tempfile.TemporaryDirectory() as output:
        flags = {
            "--data": arguments.data,
            "--output": output,
            "--run-name": "run",
            "--network": arguments.network,
            "--width": arguments.width,
            "--crop": list(arguments.crop),
            "--image-scale": arguments.image_scale,
            "--precision": arguments.precision,
            "--batch-size": arguments.batch_size,
            "--max-train-minutes": arguments.minutes,
            "--threads-per-worker": arguments.threads,
        }
        words = [str(word) for flag in flags.items() for word in flag]
        command = [sys.executable, "-m", "jobs", "train", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr)
        text = (Path(output) / "run/metrics.jsonl").read_text()
    first, *rest = (json.loads(line) for line in text.splitlines())
    images = (rest[-1]["step"] - first["step"]) * arguments.batch_size
    return images / (rest[-1]["seconds"] - first["seconds"])


def _bare(arguments: argparse.Namespace) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_loop, (arguments,))


def _loop(arguments: argparse.Namespace) -> float:
    # Only this process needs torch.
    import torch  # noqa: PLC0415
    import torch.nn.functional as F  # noqa: PLC0415

    from fcn.training.losses import at_size_of  # noqa: PLC0415
    from fcn.weights.files import build_recorded  # noqa: PLC0415

    os.nice(_WORKER_NICENESS)
    torch.set_num_threads(arguments.threads)
    record = Checkpoint(arguments.network, numbered_classes(_NUM_CLASSES), width=arguments.width)
    network = build_recorded(record).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    size = (arguments.batch_size, *arguments.crop)
    images = torch.randn(size[0], 3, *size[1:]).to(memory_format=torch.channels_last)
    of_truth = [round(side / arguments.image_scale) for side in arguments.crop]
    truths = torch.randint(0, _NUM_CLASSES, (size[0], *of_truth))
    weights = torch.ones(_NUM_CLASSES)

    def step() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.precision == "bf16"):
            scores = network(images)
        loss = F.cross_entropy(at_size_of(truths, scores).float(), truths, weights)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    for _ in range(_WARM_UP_STEPS):
        step()
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < 20 * arguments.minutes:
        step()
        steps += 1
    return steps * arguments.batch_size / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
