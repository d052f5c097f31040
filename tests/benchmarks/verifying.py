"""Verifying many masks: seconds and peak memory, in one process and in two tasks of Ray.

A run of made-up rows is written to a disk with its plan, tables and masks: names of a few files, so
that the disk is small; each of them is read, decoded, hashed and counted all the same.
"""

import argparse
import subprocess
import sys
import tempfile
import time

import psutil

from pipeline.labelling.publish import publish
from tests.benchmarks.made_up import IMAGES_PER_SHARD, made_up_run
from tests.benchmarks.made_up_rows import mask_of, write_commits, write_masks, write_plan
from tests.benchmarks.processes import family, peak_mib
from tests.benchmarks.table import print_header, print_table

_SIZE = (360, 480)
_HERE = """
import sys
from jobs.__main__ import main
sys.exit(main(["verify", *sys.argv[1:]]))
"""
# A task asks for half a CPU.
_IN_TWO_TASKS = """
import logging, sys
import ray
ray.init(num_cpus=1, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
from jobs.__main__ import main
sys.exit(main(["verify", "--ray-address", "auto", *sys.argv[1:]]))
"""
_LOOK_S = 0.5


def main() -> None:
    """Measure and print."""
    arguments = _parse()
    print_header()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        run = made_up_run(arguments.shards, f"file://{temporary}/out", arguments.classes)
        mask = mask_of(run, _SIZE)
        write_commits(run, _SIZE, arguments.classes, mask)
        write_plan(run)
        write_masks(run, mask)
        publish(run, str)
        print(f"{arguments.shards * IMAGES_PER_SHARD:,} masks of {_SIZE[0]} x {_SIZE[1]}\n")
        output = f"{temporary}/out"
        rows = [
            _measured("one process", _HERE, output),
            _measured("one process, --sample 0.001", _HERE, output, "--sample", "0.001"),
            _measured("two tasks", _IN_TWO_TASKS, output),
        ]
    heads = ["", "seconds", "CPU seconds", "peak RSS, MiB", "each task's"]
    print_table(heads, rows)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=391)
    parser.add_argument("--classes", type=int, default=6)
    parser.add_argument("--folder", help="where the output is made")
    return parser.parse_args()


def _measured(what: str, program: str, *arguments: str) -> tuple[str, str, str, str, str]:
    started = time.perf_counter()
    cpu_s: dict[int, float] = {}
    peaks: dict[int, float] = {}
    tasks: set[int] = set()
    with subprocess.Popen([sys.executable, "-c", program, *arguments]) as process:
        while process.poll() is None:
            for one in family(process.pid):
                try:
                    times = one.cpu_times()
                    cpu_s[one.pid] = times.user + times.system
                    peaks[one.pid] = peak_mib(one.pid)
                    if one.name().startswith("ray::Map("):
                        tasks.add(one.pid)
                except (psutil.Error, OSError, ValueError):
                    continue  # ended meanwhile
            time.sleep(_LOOK_S)
    assert process.returncode == 0, "the run is whole"
    seconds = time.perf_counter() - started
    of_tasks = ", ".join(f"{peaks[pid]:.0f}" for pid in sorted(tasks))
    figures = (f"{seconds:.0f}", f"{sum(cpu_s.values()):.0f}", f"{peaks[process.pid]:.0f}")
    return (what, *figures, of_tasks or "-")


if __name__ == "__main__":
    main()
