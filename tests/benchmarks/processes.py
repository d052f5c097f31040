"""CPU time and memory of a job's processes, by the role they play, and what others take."""

import threading
import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil

ROLES = ("driver", "replica", "tasks", "ray")
# Of Linux' /proc/PID/status and /proc/PID/smaps_rollup, in kB.
_MEMORY_LINES = {"RssAnon": "anon", "RssShmem": "store", "Pss": "pss"}


@dataclass(frozen=True)
class Sample:
    """One look at a job's processes.

    Attributes:
        at: Seconds since the epoch.
        cpu_s: CPU seconds used so far, per role; ended processes are kept.
        machine_s: CPU seconds used so far by everything on the machine.
        memory: Bytes per role and kind; empty if not asked for. `anon`: heaps and stacks. `pss`:
            all pages, files and Ray's object store included, each page divided among the
            processes that share it. `store`: the pages of the object store that were touched.
    """

    at: float
    cpu_s: dict[str, float]
    machine_s: float
    memory: dict[tuple[str, str], int]


class Watch:
    """Samples a process and its descendants inside a `with` block."""

    def __init__(self, pid: int, interval_s: float, *, memory: bool = False) -> None:
        """Name the root process, which is the driver.

        Args:
            pid: Of the root.
            interval_s: Between two samples.
            memory: Whether to measure memory too, which takes milliseconds per process.
        """
        self.samples: list[Sample] = []
        self._root = pid
        self._interval_s = interval_s
        self._memory = memory
        self._roles: dict[int, str] = {}
        self._cpu_s: dict[int, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._interval_s):
            self.samples.append(self._look())

    def _look(self) -> Sample:
        memory: Counter[tuple[str, str]] = Counter()
        for process in family(self._root):
            try:
                role = self._role(process)
                times = process.cpu_times()
                self._cpu_s[process.pid] = times.user + times.system
                if self._memory:
                    for kind, num_bytes in _memory(process.pid).items():
                        memory[role, kind] += num_bytes
            except (psutil.Error, OSError):
                continue  # ended meanwhile
        cpu_s: Counter[str] = Counter()
        for pid, seconds in self._cpu_s.items():
            cpu_s[self._roles[pid]] += seconds
        return Sample(time.time(), dict(cpu_s), machine_cpu_s(), dict(memory))

    def _role(self, process: psutil.Process) -> str:
        name = process.name()
        if process.pid == self._root:
            role = "driver"
        elif "Segmenter" in name:
            role = "replica"
        elif name.startswith(("ray::Map(", "ray::FlatMap(", "ray::IDLE")):
            role = "tasks"
        else:
            role = "ray"
        # A worker is idle before it becomes the replica, which it then stays.
        if self._roles.get(process.pid) != "replica":
            self._roles[process.pid] = role
        return self._roles[process.pid]


def _memory(pid: int) -> dict[str, int]:
    found = {}
    for file in ("status", "smaps_rollup"):
        with open(f"/proc/{pid}/{file}", encoding="ascii", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name in _MEMORY_LINES:
                    found[_MEMORY_LINES[name]] = int(value.split()[0]) << 10
    return found


def peak_mib(pid: int | None = None) -> float:
    """Return the most memory that a process, or this one, has had in pages, in MiB.

    What getrusage says holds that of whoever started it.
    """
    with open(f"/proc/{pid or 'self'}/status", encoding="ascii", errors="replace") as lines:
        [peak] = (line for line in lines if line.startswith("VmHWM:"))
    return int(peak.split()[1]) / 1024


def family(pid: int) -> list[psutil.Process]:
    """List a process and its descendants; none if it has ended."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def machine_cpu_s() -> float:
    """CPU seconds that everything on the machine has used, stolen ones included."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def cpu_between(samples: list[Sample], start: float, end: float) -> tuple[dict[str, float], float]:
    """Compare the first and the last sample of a time span.

    Args:
        samples: Of a `Watch`.
        start: Seconds since the epoch.
        end: The same.

    Returns:
        CPU cores that each role kept busy on average, and cores that other processes did.
    """
    within = [sample for sample in samples if start <= sample.at <= end]
    if len(within) < 2:
        return dict.fromkeys(ROLES, float("nan")), float("nan")
    first, last = within[0], within[-1]
    seconds = last.at - first.at
    own = {r: (last.cpu_s.get(r, 0.0) - first.cpu_s.get(r, 0.0)) / seconds for r in ROLES}
    others = (last.machine_s - first.machine_s) / seconds - sum(own.values())
    return own, others
