"""Images/s of the whole job over images/s of the bare Predictor loop, start-up left out.

The job is `python -m jobs label`. Its rate is counted from the first commit to the last: images
of all shards but the first, over the time between. Whatever the first shard had of start-up is
over then, and the way from the network to the commit shifts both ends alike. Shards are small,
so that there are many; each is one chunk for the network, so that they end one after the other.

The bare loop is `Predictor.predict` over the same images, decoded before the clock starts, with
the same batch size and threads, in a process of its own as nice as Ray makes its workers, so
that others on the machine slow both alike. Loop and job take turns; each job is compared with
the mean of the loops before and after it.
"""

import argparse
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.labelling import commit_times, label_command, watch_command
from tests.benchmarks.photos import add_images_flag, find_photos, lay_out
from tests.benchmarks.processes import ROLES, cpu_between, machine_cpu_s
from tests.benchmarks.table import print_header, print_table

_SAMPLE_S = 1.0
_WARM_UP_IMAGES = 16
# Ray starts its workers with this niceness (RAY_worker_niceness).
_WORKER_NICENESS = 15


@dataclass(frozen=True)
class Rate:
    """One measurement: speed, CPU time per image and role, cores that others used meanwhile."""

    images_per_s: float
    cpu_s_per_image: dict[str, float]
    others: float


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    print_header()
    with tempfile.TemporaryDirectory() as temporary:
        number = min(arguments.limit, len(find_photos(arguments.images)))
        photos = lay_out(arguments.images, Path(temporary) / "photos", number)
        print(f"{number} photographs, {arguments.shard} per shard, width {arguments.width}\n")
        loops = [_bare(photos, arguments)]
        jobs: list[Rate] = []
        for round_ in range(arguments.rounds):
            jobs.append(_job(photos, Path(temporary) / f"output-{round_}", arguments))
            loops.append(_bare(photos, arguments))
    _print(loops, jobs)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_images_flag(parser)
    parser.add_argument("--width", type=int, default=16, help="of the network")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--shard", type=int, default=32, help="images per shard")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=468, help="photographs to use")
    return parser.parse_args()


def _job(photos: Path, output: Path, arguments: argparse.Namespace) -> Rate:
    flags = {
        "--width": arguments.width,
        "--batch-size": arguments.batch_size,
        "--threads-per-replica": arguments.threads,
        "--max-shard-images": arguments.shard,
    }
    words = [str(word) for flag in flags.items() for word in flag]
    samples = watch_command(label_command(photos, output, *words), _SAMPLE_S)
    commits = commit_times(output)
    start, end = commits[0][0], commits[-1][0]
    rate = sum(number for _, number in commits[1:]) / (end - start)
    cores, others = cpu_between(samples, start, end)
    return Rate(rate, {role: cores[role] / rate for role in ROLES}, others)


def _bare(photos: Path, arguments: argparse.Namespace) -> Rate:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(
            bare_loop, (photos, arguments.width, arguments.batch_size, arguments.threads)
        )


def bare_loop(photos: Path, width: int, batch_size: int, threads: int) -> Rate:
    """Measure the Predictor alone, in a process that does nothing else.

    Args:
        photos: Folder of images.
        width: Of the network.
        batch_size: Images of one size that go through the network together.
        threads: Of the network.
    """
    from fcn.checkpoint import Checkpoint, numbered_classes  # noqa: PLC0415
    from fcn.predictor import Predictor  # noqa: PLC0415 - loads torch
    from fcn.weights import random_network  # noqa: PLC0415
    from pipeline.decode import decode_image  # noqa: PLC0415

    os.nice(_WORKER_NICENESS)
    record = Checkpoint("fcn_all_skips", numbered_classes(21), width, weights_sha256="random:0")
    predictor = Predictor(
        random_network(record, 0), record, batch_size=batch_size, num_threads=threads
    )
    paths = sorted(photos.rglob("*.jpg"))
    images = [decode_image(path.read_bytes(), 1 << 30) for path in paths]
    predictor.predict(images[:_WARM_UP_IMAGES])
    start, own, machine = time.perf_counter(), time.process_time(), machine_cpu_s()
    for first in range(0, len(images), batch_size):
        predictor.predict(images[first : first + batch_size])
    seconds = time.perf_counter() - start
    own = time.process_time() - own
    others = (machine_cpu_s() - machine - own) / seconds
    return Rate(len(images) / seconds, {"replica": own / len(images)}, others)


def _print(loops: list[Rate], jobs: list[Rate]) -> None:
    ratios = []
    rows = []
    for index, job in enumerate(jobs):
        around = (loops[index].images_per_s + loops[index + 1].images_per_s) / 2
        others = (loops[index].others + loops[index + 1].others) / 2
        ratios.append(job.images_per_s / around)
        figures = (around, others, job.images_per_s, job.others, ratios[-1])
        rows.append([f"round {index + 1}", *(f"{figure:.2f}" for figure in figures)])
    medians = [statistics.median(float(row[column]) for row in rows) for column in range(1, 5)]
    figures = (*medians, statistics.median(ratios))
    rows.append(["median", *(f"{figure:.2f}" for figure in figures)])
    print_table(["", "bare images/s", "others", "job images/s", "others", "efficiency"], rows)
    print("others: CPU cores that other processes of the machine kept busy meanwhile\n")
    _print_cpu(loops, jobs)


def _print_cpu(loops: list[Rate], jobs: list[Rate]) -> None:
    bare = statistics.median(loop.cpu_s_per_image["replica"] for loop in loops)
    rows = [["bare loop", f"{1e3 * bare:.1f}"]]
    total = 0.0
    for role in ROLES:
        seconds = statistics.median(job.cpu_s_per_image[role] for job in jobs)
        total += 0.0 if math.isnan(seconds) else seconds
        rows.append([f"job, {role}", f"{1e3 * seconds:.1f}"])
    rows.append(["job, all", f"{1e3 * total:.1f}"])
    print_table(["CPU time", "ms per image"], rows)
