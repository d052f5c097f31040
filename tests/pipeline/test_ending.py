"""Ending: in order if it can be, and in time, whatever stands in the way."""

import ast
import signal
import subprocess
import sys

import pytest

from tests.product import REPOSITORY

_PROGRAM = """
import logging, os, signal, sys, threading, time
from pipeline.ending import *
from pipeline.errors import Stopped
logging.basicConfig()
stop_on_signals(1.0, lambda: print("at last", flush=True))
def swallow():
    try:
        os.kill(os.getpid(), signal.{name})
        time.sleep(600)
    except BaseException as error:
        print(repr(error), is_stopping(), flush=True)
{rest}
"""
_RESTS = {
    "swallowed": "swallow(); time.sleep(600)",
    "a thread is waited for": "threading.Thread(target=time.sleep, args=(600,)).start(); swallow()",
}


def _run(rest: str, name: str = "SIGTERM") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(name=name, rest=rest)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("rest", list(_RESTS))
def test_what_does_not_end_is_ended(rest: str, name: str):
    """With 5, after the grace time, with what has to be done at last, and a line that says so."""
    ended = _run(_RESTS[rest], name)
    assert ended.returncode == 5, ended
    assert ended.stdout == f"Stopped('{name}') True\nat last\n"
    assert f"not ended 1 s after {name}" in ended.stderr


def test_what_ends_in_time_ends_by_itself():
    """Nothing is said, and the exit code is its own."""
    ended = _run("print(is_stopping()); swallow(); sys.exit(5)")
    assert (ended.returncode, ended.stdout, ended.stderr) == (
        5,
        "False\nStopped('SIGTERM') True\n",
        "",
    )


def test_an_error_is_raised_where_the_main_thread_waits():
    """Also in a call that would last."""
    program = """
raise_it = raise_in_main_thread(ValueError("gone"))
threading.Timer(0.5, raise_it).start()
try:
    time.sleep(600)
except ValueError as error:
    print(error)
"""
    assert _run(program).stdout == "gone\n"


_DONE = """
import atexit, os, signal, threading, time
{first}
from pipeline.ending import *
stop_on_signals(1.0)
keep_code(3)
{rest}
raise SystemExit(3)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("when", ["at exit", "while a thread is waited for"])
def test_a_signal_behind_the_outcome_changes_no_exit_code(name: str, when: str):
    """A command that is done ends with its code, whatever meets it on the way out."""
    kill = f"os.kill(os.getpid(), signal.{name})"
    # What is registered first is called last.
    first = f"atexit.register(lambda: {kill})" if when == "at exit" else ""
    rest = "" if first else f"threading.Timer(0.3, lambda: ({kill}, time.sleep(600))).start()"
    ended = subprocess.run(
        [sys.executable, "-c", _DONE.format(first=first, rest=rest)],
        cwd=REPOSITORY,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 3


# Each child is a command that meets the signal some lines later than the child before it.
_AT_EVERY_LINE = """
import os, signal, sys
from jobs.__main__ import command

class Signal:
    def __init__(self, lines):
        self.lines, self.is_settled = lines, False

    def __call__(self, frame, event, argument):
        if frame.f_code.co_name == "_outcome" and event == "exception":
            self.is_settled = True
        if event == "line" and self.is_settled:
            self.lines -= 1
            if self.lines == 0:
                os.kill(os.getpid(), signal.SIGINT)
        return self

def meet(lines):
    sys.settrace(signal := Signal(lines))
    try:
        command()
    finally:
        if signal.lines > 0:
            os._exit(100)

def ended(lines):
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writes, 2)
        meet(lines)
    os.close(writes)
    with open(reads) as file:
        shown = file.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    is_5 = code == 5 and "stopped by SIGINT before" in shown
    return code if "Traceback" not in shown and (is_5 or code in (2, 100)) else shown

sys.argv = ["fcn", "nonesuch"]
codes = []
while 100 not in codes:
    # A prime number of lines: no loop is met at the same place each time.
    codes.append(ended(7 * len(codes) + 1))
print({code: codes.count(code) for code in codes})
"""


def test_a_signal_at_any_line_behind_the_outcome_leaves_a_code_that_is_true():
    """That of the outcome, or 5 with its sentence; never a traceback."""
    ended = subprocess.run(
        [sys.executable, "-c", _AT_EVERY_LINE],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    counts = ast.literal_eval(ended.stdout)
    assert set(counts) == {2, 5, 100}, ended
    # Of the lines of the ending most are gone through with a code that is settled.
    assert counts[100] == 1
    assert counts[2] > 3


_START = "import sys; from fcn_pipeline import main; sys.exit(main())"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("delay_s", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("how", [["-m", "jobs"], ["-c", _START]], ids=["jobs", "fcn"])
def test_a_signal_while_it_starts_ends_it_with_5(
    name: str, delay_s: float, how: list[str], tmp_path
):
    """With a sentence, from the moment on that Python runs its first line."""
    command = [sys.executable, *how, "label", "--input", str(tmp_path), "--output", str(tmp_path)]
    with subprocess.Popen(
        [*command, "--weights", "random:0"], cwd=REPOSITORY, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for_handler(process)
        try:
            # Ends by itself where the machine is fast: there is no image.
            process.wait(delay_s)
        except subprocess.TimeoutExpired:
            process.send_signal(getattr(signal, name))
            process.wait(60)
        assert process.stderr is not None
        shown = process.stderr.read()
        # What had come to its end keeps the code of that: 3, since there is no image.
        assert process.returncode == (5 if f"stopped by {name} before" in shown else 3), shown
        assert delay_s > 0.0 or process.returncode == 5


def wait_for_handler(process: subprocess.Popen[str]) -> None:
    """Wait until the process catches SIGTERM."""
    bit = 1 << (signal.SIGTERM - 1)
    while process.poll() is None:
        with open(f"/proc/{process.pid}/status", encoding="utf-8") as file:
            [caught] = [line.split()[1] for line in file if line.startswith("SigCgt")]
        if int(caught, 16) & bit:
            return
