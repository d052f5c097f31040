"""The watchdog: hangs in foreign code end the process, with and without the interpreter's lock."""

import subprocess
import sys

import pytest

from tests.product import REPOSITORY

_PROGRAM = """
import ctypes, time
from pipeline.labelling.watchdog import Watchdog
dog = Watchdog(2.0)
for _ in range(3):  # overlapping and after each other
    with dog.awake(), dog.awake(), dog.limit("nothing", 2.0):
        time.sleep(0.8)
time.sleep(2.5)  # nothing is being done
print("well", flush=True)
with dog.awake(), dog.limit("the picture", 2.0):
    {hang}
"""


@pytest.mark.parametrize(
    ("hang", "code", "said"),
    [
        ("time.sleep(1000)", 70, "the picture hangs"),
        ("ctypes.PyDLL(None).sleep(1000)", 1, "Timeout"),
    ],
    ids=["without the lock", "with the lock"],
)
def test_a_hang_ends_the_process(hang: str, code: int, said: str) -> None:
    """Its traceback is shown; work within its limits, and none at all, is left alone."""
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(hang=hang)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (code, "well\n"), ended.stderr
    assert said in ended.stderr
    assert 'File "<string>"' in ended.stderr
