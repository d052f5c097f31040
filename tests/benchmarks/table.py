"""What every benchmark prints: where its numbers come from, then one small table."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil


def print_header() -> None:
    """Print the command, the commit, the machine and the date."""
    command = ["python", "-m", "tests.benchmarks", Path(sys.argv[0]).stem, *sys.argv[1:]]
    changed = _git("status", "--porcelain", "--", "fcn", "pipeline", "jobs")
    print(f"command  {shlex.join(command)}")
    print(f"commit   {_git('rev-parse', '--short', 'HEAD')}{' with changes' if changed else ''}")
    print(f"machine  {_machine()}")
    print(f"date     {datetime.now(UTC):%Y-%m-%d %H:%M} UTC\n", flush=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows below their columns, right-aligned but for the first.

    Args:
        columns: The headings.
        rows: Cells; a float is shown with its caller's digits only if it comes as text.
    """
    cells = [list(columns), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        first = row[0].ljust(widths[0])
        rest = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        print("  ".join([first, *rest]))
    print(flush=True)


def _machine() -> str:
    cores = len(os.sched_getaffinity(0))
    gigabytes = psutil.virtual_memory().total / (1 << 30)
    return f"{_processor()}, {cores} cores, {gigabytes:.0f} GiB, no GPU used"


def _processor() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _git(*arguments: str) -> str:
    result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return result.stdout.strip() or ("unknown" if result.returncode else "")
