"""Ray as an operator starts it: `ray start`, with a token, its own folder and its own ports."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.product import REPOSITORY
from tests.servers import free_port

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-token-of-the-tests-0123456789"}
# A node that is gone is found out in five seconds; Ray takes half a minute.
# Metrics are there in a second; Ray takes ten.
_SYSTEM = json.dumps({"health_check_period_ms": 1000, "metrics_report_interval_ms": 1000})
_BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Head:
    """A cluster that runs."""

    address: str
    dashboard_url: str
    folder: str
    metrics_port: int

    def environ(self, **changes: str) -> dict[str, str]:
        """Return the environment of a user of this cluster, who has the project installed.

        An empty value removes a variable.
        """
        path = os.pathsep.join([str(_BIN), os.environ["PATH"]])
        found = {**os.environ, **TOKEN, "PATH": path, "PYTHONPATH": str(REPOSITORY), **changes}
        return {name: value for name, value in found.items() if value}


@dataclass(frozen=True)
class Node:
    """A node that runs; `process` is the `ray start --block` that all its others descend from."""

    process: subprocess.Popen[bytes]

    def processes(self) -> list[psutil.Process]:
        """List the node's processes that run; parents come before their children."""
        try:
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def pids(self) -> set[int]:
        return {one.pid for one in self.processes()}

    @property
    def node_id(self) -> str:
        """Ray's name for it, in hexadecimal digits."""
        words = [word for one in self.processes() for word in _words(one)]
        [found] = {
            word.removeprefix("--node_id=") for word in words if word.startswith("--node_id")
        }
        return found

    def kill(self) -> None:
        """Send SIGKILL to every process of the node, and to no other: its machine is gone."""
        for one in self.processes():
            _kill(one)
        self.process.wait()

    @property
    def runs(self) -> bool:
        return self.process.poll() is None


@contextmanager
def ray_head(
    *,
    dashboard: bool,
    num_cpus: int = 2,
    host: str = "127.0.0.1",
    more_flags: Callable[[Head], list[str]] = lambda _: [],
    **environ: str,
) -> Iterator[Head]:
    """Run a head until the block ends; flags may depend on where it is."""
    # A short path: sockets lie below it.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    names = ("port", "dashboard-port", "ray-client-server-port", "metrics-export-port")
    ports = {name: free_port() for name in names}
    head = Head(
        f"{host}:{ports['port']}",
        f"http://127.0.0.1:{ports['dashboard-port']}",
        folder,
        ports["metrics-export-port"],
    )
    flags = [f"--{name}={port}" for name, port in ports.items()]
    flags += ["--head", f"--system-config={_SYSTEM}", f"--temp-dir={folder}"]
    flags += [f"--include-dashboard={str(dashboard).lower()}", f"--node-ip-address={host}"]
    ready = head.dashboard_url if dashboard else None
    try:
        flags += more_flags(head)
        with _ray_start(head, flags, num_cpus, head.environ(**environ), ready):
            yield head
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def ray_worker(head: Head, environ: dict[str, str], num_cpus: int = 1) -> Iterator[Node]:
    """Let another node join, whose processes have this environment."""
    # An address of its own: of several nodes with one address a driver takes any for its own.
    flags = [f"--address={head.address}", f"--node-ip-address=127.0.0.{1 + _num_started(head)}"]
    flags += [f"--metrics-export-port={free_port()}"]
    with _ray_start(head, flags, num_cpus, environ, None) as node:
        yield node


@contextmanager
def _ray_start(
    head: Head, flags: list[str], num_cpus: int, environ: dict[str, str], ready_url: str | None
) -> Iterator[Node]:
    agents = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "runtime-env-agent-port")
    command = [
        *(str(_BIN / "ray"), "start", "--block", *flags, f"--num-cpus={num_cpus}"),
        "--object-store-memory=500000000",
        # Random ports for workers: of the usual range another Ray on this machine has some.
        *("--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"),
        *(f"--{name}={free_port()}" for name in agents),
    ]
    log = Path(head.folder) / f"start-{_num_started(head)}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environ, cwd="/"
        )
    try:
        _wait(process, log, ready_url)
        yield Node(process)
    finally:
        _end(Node(process))


def _num_started(head: Head) -> int:
    """Count the nodes that have been started, the head included."""
    return len(list(Path(head.folder).glob("start-*.log")))


def _wait(process: subprocess.Popen[bytes], log: Path, ready_url: str | None) -> None:
    for _ in range(600):
        if process.poll() is not None:
            break
        if "block forever" in log.read_text() and (ready_url is None or _answers(ready_url)):
            return
        time.sleep(0.1)
    raise RuntimeError(f"Ray did not start: {log.read_text()[-3000:]}")


def _answers(url: str) -> bool:
    request = urllib.request.Request(
        f"{url}/api/version", headers={"Authorization": f"Bearer {TOKEN['RAY_AUTH_TOKEN']}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5):
            return True
    except OSError:
        return False


def _end(node: Node) -> None:
    """End the processes of this node by their ids, and no other Ray's."""
    family = node.processes()
    node.process.terminate()
    _, alive = psutil.wait_procs(family, 2)
    for one in alive:
        _kill(one)
    node.process.wait(10)


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []
