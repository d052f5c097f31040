"""Ray as an operator starts it: `ray start`, with a token, its own folder and its own ports."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.product import REPOSITORY
from tests.servers import free_port

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-token-of-the-tests-0123456789"}
_BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Head:
    """A cluster that runs."""

    address: str
    dashboard_url: str
    folder: str
    metrics_port: int

    def environ(self, **changes: str) -> dict[str, str]:
        """Give the environment of a user of this cluster, who has the project installed.

        An empty value removes a variable.
        """
        path = os.pathsep.join([str(_BIN), os.environ["PATH"]])
        found = {**os.environ, **TOKEN, "PATH": path, "PYTHONPATH": str(REPOSITORY), **changes}
        return {name: value for name, value in found.items() if value}


@contextmanager
def ray_head(*, dashboard: bool) -> Iterator[Head]:
    """Run a head with two CPUs until the block ends."""
    # A short path: sockets lie below it.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    names = ("port", "dashboard-port", "ray-client-server-port", "metrics-export-port")
    ports = {name: free_port() for name in names}
    head = Head(
        f"127.0.0.1:{ports['port']}",
        f"http://127.0.0.1:{ports['dashboard-port']}",
        folder,
        ports["metrics-export-port"],
    )
    flags = [f"--{name}={port}" for name, port in ports.items()]
    flags += [
        "--head",
        "--node-ip-address=127.0.0.1",
        f"--temp-dir={folder}",
        f"--include-dashboard={str(dashboard).lower()}",
    ]
    ready = head.dashboard_url if dashboard else None
    try:
        with _ray_start(head, flags, 2, head.environ(), ready):
            yield head
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def ray_worker(head: Head, environ: dict[str, str], num_cpus: int = 1) -> Iterator[None]:
    """Let another node join, whose processes have this environment."""
    # An address of its own: of several nodes with one address a driver takes any for its own.
    flags = [f"--address={head.address}", "--node-ip-address=127.0.0.2"]
    flags += [f"--metrics-export-port={free_port()}"]
    with _ray_start(head, flags, num_cpus, environ, None):
        yield


@contextmanager
def _ray_start(
    head: Head, flags: list[str], num_cpus: int, environ: dict[str, str], ready_url: str | None
) -> Iterator[None]:
    agents = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "runtime-env-agent-port")
    command = [
        *(str(_BIN / "ray"), "start", "--block", *flags, f"--num-cpus={num_cpus}"),
        "--object-store-memory=500000000",
        # Random ports for workers: of the usual range another Ray on this machine has some.
        *("--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"),
        *(f"--{name}={free_port()}" for name in agents),
    ]
    log = Path(head.folder) / f"start-{len(os.listdir(head.folder))}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environ, cwd="/"
        )
    try:
        _wait(process, log, ready_url)
        yield
    finally:
        _end(process)


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


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the processes of this node by their ids, and no other Ray's."""
    family = [process, *psutil.Process(process.pid).children(recursive=True)]
    process.terminate()
    _, alive = psutil.wait_procs([psutil.Process(one.pid) for one in family if _runs(one)], 2)
    for one in alive:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait(10)


def _runs(process: "psutil.Process | subprocess.Popen[bytes]") -> bool:
    return psutil.pid_exists(process.pid)
