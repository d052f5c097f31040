"""A machine that is too busy for Ray's own processes: what is at work there waits for them."""

import subprocess
import sys

import pytest

from tests.product import REPOSITORY

_PROGRAM = """
import os, signal, threading, time
import psutil
import ray
from pipeline.cluster.connect import start_ray

start_ray(None)

@ray.remote
def answer():
    return "still here"

print(ray.get(answer.remote()), flush=True)
[stopped] = [one for one in psutil.Process().children(recursive=True) if one.name() == "raylet"]
stopped.send_signal(signal.SIGSTOP)
threading.Thread(target=ray.nodes, daemon=True).start()
time.sleep(100)
stopped.send_signal(signal.SIGCONT)
time.sleep(20)  # in which Ray would draw its conclusions
print(ray.get(answer.remote()), flush=True)
"""


@pytest.mark.faults
@pytest.mark.timeout(400)
def test_a_ray_of_our_own_that_stands_still_is_waited_for() -> None:
    """After 100 s in which the raylet stands still, and its head would bury it, work goes on."""
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=390,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "still here\n" * 2), ended.stderr
