"""The exit code of a command that has used Ray, and what is left of its Ray."""

import subprocess
import sys
import time

import psutil

from tests.product import REPOSITORY

_PROGRAM = """
import sys, threading, time
from pipeline.cluster.leaving import leave_ray
leave_ray(7)
print("no Ray, no end", flush=True)
# As the raylet looks when the first of its sockets has closed and the other has not yet, and with
# time for whoever watches it.
import socket
from pipeline.cluster import head, leaving
def half_closed(store, raylet):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(store)
        one.recv(1)
    return True
head._ends_in_order = half_closed
end_mine = leaving.end_mine
leaving.end_mine = lambda: (end_mine(), time.sleep(1))
from pipeline.cluster.connect import connect
connect(None)
import ray
@ray.remote
def wait():
    time.sleep(600)
waiting = wait.remote()
threading.Thread(target=ray.get, args=(waiting,), daemon=True).start()
time.sleep(2)
leave_ray(0)
leave_ray(4)
print(*[one.pid for one in __import__("psutil").Process().children(recursive=True)], flush=True)
leave_ray(7)
"""


def test_ray_is_left_with_the_exit_code_and_leaves_nobody():
    """Before its work is done a command passes Ray's end over, with a thread that waits in it.

    Who watches Ray does not take that end for a loss, whatever it sees of it first.
    """
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    first, pids = done.stdout.splitlines()
    assert (done.returncode, first) == (7, "no Ray, no end"), done
    assert len(pids.split()) > 3
    end = time.monotonic() + 10
    while alive := [pid for pid in map(int, pids.split()) if _is_alive(pid)]:
        assert time.monotonic() < end, alive
        time.sleep(0.1)


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
