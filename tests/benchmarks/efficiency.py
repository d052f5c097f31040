"""Images/s of the whole job over images/s of the bare Predictor loop, start-up left out.

The job is `python -m jobs label`. Its rate is counted from the first commit to the last: images
of all shards but the first, over the time between. Whatever the first shard had of start-up is
over then, and the way from the network to the commit shifts both ends alike. Shards are small,
so that there are many; each is one chunk for the network, so that they end one after the other.
Larger ones (`--shard 256`) end three at a time, as a replica works on them, and the rate between
commits is then half as high again as it is.

The bare loop is `Predictor.predict` over the same images, decoded before the clock starts, with
the same batch size and threads, in a process of its own as nice as Ray makes its workers, so
that others on the machine slow both alike. Loop and job take turns; each job is compared with
the mean of the loops before and after it.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

from tests.benchmarks.bare_loop import Rate, measure_bare_loop
from tests.benchmarks.labelling import commit_times, label_command, watch_command
from tests.benchmarks.photos import add_images_flag, lay_out
from tests.benchmarks.processes import ROLES, cpu_between
from tests.benchmarks.table import print_header, print_table

_SAMPLE_S = 1.0


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    print_header()
    with tempfile.TemporaryDirectory() as temporary:
        photos = lay_out(arguments.images, Path(temporary) / "photos", arguments.limit)
        print(
            f"{arguments.limit} photographs, {arguments.shard} per shard, width {arguments.width}, "
            f"batch size {arguments.batch_size}, {arguments.threads} threads\n"
        )
        loops = [_bare(photos, arguments)]
        jobs: list[Rate] = []
        for round_ in range(arguments.rounds):
            jobs.append(_job(photos, Path(temporary) / f"output-{round_}", arguments))
            loops.append(_bare(photos, arguments))
    _print_rates(loops, jobs)
    _print_cpu(loops, jobs)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_images_flag(parser)
    parser.add_argument("--width", type=int, default=16, help="of the network")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--shard", type=int, default=32, help="images per shard")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=468, help="photographs to use; they repeat")
    return parser.parse_args()


def _bare(photos: Path, arguments: argparse.Namespace) -> Rate:
    return measure_bare_loop(photos, arguments.width, arguments.batch_size, arguments.threads)


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


def _print_rates(loops: list[Rate], jobs: list[Rate]) -> None:
    rows = [_row("bare loop", loops[0])]
    ratios = []
    for before, job, after in zip(loops, jobs, loops[1:], strict=False):
        ratios.append(2 * job.images_per_s / (before.images_per_s + after.images_per_s))
        rows += [_row("job", job, f"{ratios[-1]:.3f}"), _row("bare loop", after)]
    print_table(["in turns", "images/s", "others", "efficiency"], rows)
    print("others: CPU cores that other processes of the machine kept busy meanwhile")
    print(f"median: {statistics.median(ratios):.3f}\n")


def _row(name: str, rate: Rate, ratio: str = "") -> list[str]:
    return [name, f"{rate.images_per_s:.2f}", f"{rate.others:.2f}", ratio]


def _print_cpu(loops: list[Rate], jobs: list[Rate]) -> None:
    rows = [["bare loop", _median_ms(loops, "replica")]]
    rows += [[f"job, {role}", _median_ms(jobs, role)] for role in ROLES]
    print_table(["CPU time", "ms per image"], rows)


def _median_ms(rates: list[Rate], role: str) -> str:
    return f"{1e3 * statistics.median(rate.cpu_s_per_image[role] for rate in rates):.1f}"


if __name__ == "__main__":
    main()
