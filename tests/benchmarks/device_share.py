"""Share of its time that a device of 7 ms per image is kept busy by the pipeline.

The device is a stand-in (stand_in.py) that only sleeps, so that one machine without a GPU shows
what the pipeline leaves of a fast one. Share = seconds at work over seconds from the start of the
first call to the end of the last: start-up is left out, pauses and the end of the run are not.
"""

import argparse
import multiprocessing
import statistics
import tempfile
from functools import partial
from pathlib import Path

from tests.benchmarks.labelling import commit_times, label_with
from tests.benchmarks.photos import add_images_flag, lay_out
from tests.benchmarks.processes import ROLES, Watch, cpu_between
from tests.benchmarks.stand_in import busy_share, open_stand_in
from tests.benchmarks.table import print_header, print_table

_SAMPLE_S = 1.0


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    print_header()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        photos = lay_out(arguments.images, Path(temporary) / "photos", arguments.number)
        for round_ in range(arguments.rounds):
            for shard in arguments.shards:
                folder = Path(temporary) / f"{round_}-{shard}"
                rows.append((shard, *_measure(photos, folder, shard, arguments.ms / 1e3)))
    print(f"{arguments.number} photographs, {arguments.ms:g} ms each\n")
    _print(rows)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_images_flag(parser)
    parser.add_argument("--ms", type=float, default=7.0, help="of the device, per image")
    parser.add_argument("--number", type=int, default=4 * 468, help="photographs")
    parser.add_argument("--shards", type=int, nargs="+", default=[256, 64], help="images per shard")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def _measure(photos: Path, folder: Path, shard: int, seconds_per_image: float) -> tuple[float, ...]:
    """Return share, images/s, CPU cores of others, and CPU ms per image of each role and of all."""
    folder.mkdir()
    log = str(folder / "calls")
    load = partial(open_stand_in, seconds_per_image, log)
    process = multiprocessing.get_context("spawn").Process(
        target=label_with, args=(load, photos, folder / "output", shard)
    )
    process.start()
    assert process.pid is not None, "started"
    with Watch(process.pid, _SAMPLE_S) as watch:
        process.join()
    if process.exitcode:
        raise SystemExit(f"the job ended with exit code {process.exitcode}")
    busy, span = busy_share(log)
    commits = commit_times(folder / "output")
    number = sum(images for _, images in commits)
    end = commits[-1][0]
    cores, others = cpu_between(watch.samples, end - span, end)
    of_roles = [1e3 * cores[role] / (number / span) for role in ROLES]
    return busy / span, number / span, others, *of_roles, sum(of_roles)


def _print(measured: list[tuple[float, ...]]) -> None:
    rows = [_row(f"{shard:.0f}", figures) for shard, *figures in measured]
    for shard in dict.fromkeys(one[0] for one in measured):
        same = [one[1:] for one in measured if one[0] == shard]
        rows.append(
            _row(f"{shard:.0f}, median", [statistics.median(c) for c in zip(*same, strict=True)])
        )
    print_table(["images per shard", "busy share", "images/s", "others", *ROLES, "all"], rows)
    print("others: CPU cores that are not of the job; the rest: CPU ms per image\n")


def _row(name: str, figures: list[float]) -> list[str]:
    share, rate, *others = figures
    return [name, f"{share:.3f}", f"{rate:.1f}", *(f"{one:.2f}" for one in others)]


if __name__ == "__main__":
    main()
