"""Seconds from the command to the first commit object, by phase.

`python -m jobs label` runs on a few photographs in small shards. Its log lines are stamped as
they arrive, the folder of the commits is polled, and the replica's state is read from the title
that Ray gives its process.
"""

import argparse
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil

from tests.benchmarks.labelling import label_command
from tests.benchmarks.photos import add_images_flag, lay_out
from tests.benchmarks.processes import family, machine_cpu_s
from tests.benchmarks.table import print_header, print_table

_POLL_S = 0.02
# Reading the titles of all processes costs milliseconds, on the cores that are being measured.
_TITLES_S = 0.2

# What ends each phase: a text in a log line, or a mark of `_observe`.
_PHASES = {
    "interpreter, imports, settings": "UNTRAINED",
    "look, lock, plan": "shards to do",
    "import ray": "starting Ray",
    "start Ray, import ray.data": "replica(s)",
    "start worker processes": "replica constructed",
    "replica: torch, weights": "replica ready",
    "first shard": "commit",
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_images_flag(parser)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--number", type=int, default=24, help="photographs")
    parser.add_argument("--shard", type=int, default=8, help="images per shard")
    arguments = parser.parse_args()
    print_header()
    with tempfile.TemporaryDirectory() as temporary:
        photos = lay_out(arguments.images, Path(temporary) / "photos", arguments.number)
        rounds = []
        for round_ in range(arguments.rounds):
            output = Path(temporary) / f"output-{round_}"
            command = label_command(photos, output, "--max-shard-images", str(arguments.shard))
            rounds.append(_measure(command, output))
    _print(rounds)


def _measure(command: list[str], output: Path) -> dict[str, float]:
    """Return the seconds after the start at which each phase ended, and the others' load."""
    start, machine = time.monotonic(), machine_cpu_s()
    marks: dict[str, float] = {}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None, "asked for"
        reader = threading.Thread(target=_read, args=(process.stderr, marks), daemon=True)
        reader.start()
        for mark in _observe(process, output):
            marks.setdefault(mark, time.monotonic())
        own = sum(_cpu_s(one) for one in family(process.pid))
        seconds = time.monotonic() - start
        others = (machine_cpu_s() - machine - own) / seconds
        reader.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return {mark: at - start for mark, at in marks.items()} | {"others": others}


def _read(lines: IO[str], marks: dict[str, float]) -> None:
    for line in lines:
        for text in _PHASES.values():
            if text in line:
                marks.setdefault(text, time.monotonic())


def _observe(process: subprocess.Popen[str], output: Path) -> Iterator[str]:
    """Return marks until the first commit is there."""
    looked = 0.0
    while process.poll() is None:
        if any(output.glob("runs/*/commits/shard-*.parquet")):
            yield "replica constructed"
            yield "replica ready"
            yield "commit"
            return
        if time.monotonic() - looked > _TITLES_S:
            titles = [_title(one) for one in family(process.pid)]
            if any("Segmenter" in title for title in titles):
                yield "replica constructed"
            if any("Segmenter" in title and "__init__" not in title for title in titles):
                yield "replica ready"
            looked = time.monotonic()
        time.sleep(_POLL_S)


def _title(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return ""


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _print(rounds: list[dict[str, float]]) -> None:
    rows = []
    previous = [0.0] * len(rounds)
    for phase, mark in _PHASES.items():
        ends = [round_[mark] for round_ in rounds]
        rows.append(_row(phase, [end - start for end, start in zip(ends, previous, strict=True)]))
        previous = ends
    rows.append(_row("until the first commit", [round_["commit"] for round_ in rounds]))
    rows.append(_row("others, in cores", [round_["others"] for round_ in rounds]))
    headings = ["seconds", *(f"round {index + 1}" for index in range(len(rounds))), "median"]
    print_table(headings, rows)
    print("others: CPU cores that other processes of the machine kept busy meanwhile\n")


def _row(name: str, figures: list[float]) -> list[str]:
    return [name, *(f"{figure:.2f}" for figure in (*figures, statistics.median(figures)))]


if __name__ == "__main__":
    main()
