"""How commands end: with the exit code of what they found."""

import subprocess
import sys
from functools import partial
from pathlib import Path

from pipeline.labelling import report
from pipeline.labelling.publish import publish
from tests.disk_runs import draw_images, label_run, start_run
from tests.product import REPOSITORY

# The threads after it that were not there before.
_PROGRAM = """
import os, sys
from jobs.__main__ import main
import jobs.verify
before = set(os.listdir("/proc/self/task"))
code = main(["verify", sys.argv[1]])
print("threads left:", set(os.listdir("/proc/self/task")) - before)
sys.exit(code)
"""


def test_verify_leaves_no_thread_to_abort_its_end(tmp_path: Path) -> None:
    """Arrow's threads, which may free memory of Python's after its end, have nothing to do."""
    run = start_run(tmp_path, draw_images(tmp_path, 40), max_shard_images=2)
    label_run(run)
    publish(run, partial(report.as_html, run))
    command = [sys.executable, "-c", _PROGRAM, str(tmp_path / "out")]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (ended.returncode, "threads left: set()" in ended.stdout) == (0, True), ended
