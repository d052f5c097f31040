"""A machine that is too busy for Ray's own processes: what is at work there waits for them."""

import subprocess
import sys

import pytest

from tests.product import REPOSITORY

_PROGRAM = """
import os, signal, time
import psutil
import ray
from pipeline.cluster.connect import start_ray

start_ray(None)

@ray.remote
def answer():
    return "still here"

print(ray.get(answer.remote()), flush=True)
[stopped] = [one for one in psutil.Process().children(recursive=True) if one.name() == "{name}"]
stopped.send_signal(signal.SIGSTOP)
time.sleep({seconds})
stopped.send_signal(signal.SIGCONT)
print(ray.get(answer.remote()), flush=True)
"""


@pytest.mark.faults
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["gcs_server", "raylet"])
def test_a_ray_of_our_own_that_stands_still_is_waited_for(name: str) -> None:
    """After 80 s without a breath of its head, or of its raylet, the command goes on."""
    ended = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(name=name, seconds=80)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=390,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "still here\n" * 2), ended.stderr
