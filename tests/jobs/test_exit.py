"""How commands end: with the exit code of what they found."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from pipeline.labelling import report
from pipeline.labelling.history import History
from pipeline.labelling.publish import publish
from tests.disk_runs import draw_images, label_run, start_run
from tests.product import REPOSITORY

# The threads after it that were not there before. One that was joined may be on its way out still:
# Python's join waits for the thread's last line, not for the system's end of it.
_PROGRAM = """
import os, sys, time
from jobs.__main__ import main
import jobs.verify

def tasks():
    return set(os.listdir("/proc/self/task"))

before = tasks()
code = main(["verify", sys.argv[1]])
until = time.monotonic() + 10
while tasks() - before and time.monotonic() < until:
    time.sleep(0.01)
print("threads left:", tasks() - before)
sys.exit(code)
"""


def test_verify_leaves_no_thread_to_abort_its_end(tmp_path: Path) -> None:
    """Arrow's threads, which may free memory of Python's after its end, have nothing to do."""
    command = [sys.executable, "-c", _PROGRAM, _finished(tmp_path)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (ended.returncode, "threads left: set()" in ended.stdout) == (0, True), ended


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_no_verify_of_200_under_load_aborts(tmp_path: Path) -> None:
    """With three at work for each core, the exit code is that of the verdict 200 times."""
    output = _finished(tmp_path)

    def verify(_: int) -> int:
        command = [sys.executable, "-m", "jobs", "verify", output]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False).returncode

    with ThreadPoolExecutor(3 * (os.cpu_count() or 1)) as pool:
        assert set(pool.map(verify, range(200))) == {0}


def _finished(folder: Path) -> str:
    run = start_run(folder, draw_images(folder, 40), max_shard_images=2)
    label_run(run)
    publish(run, partial(report.as_html, run, history=History(run.storage, run.output)))
    return str(folder / "out")
