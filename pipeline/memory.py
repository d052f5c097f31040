"""What a process takes: freed memory goes back to the system, and there may be a limit.

A process is to be as large as what it holds. Pictures and rows come and go in many threads, and
glibc keeps their pieces: without this driver and replica grow with the number of images
(docs/performance.md).
"""

import ctypes
import resource
from pathlib import Path

import pyarrow as pa


def release_free_memory() -> None:
    """Give back what is free (glibc's `malloc_trim`); other C libraries have no such call."""
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)


def use_system_allocator() -> None:
    """Let Arrow take its memory from the C library, which gives it back sooner.

    `jobs` asks for it in the environment, which the processes of a cluster's nodes do not have.
    """
    pa.set_memory_pool(pa.system_memory_pool())


def available_memory(root: Path = Path("/")) -> int | None:
    """Return how many bytes this process can still take: of the machine, or of its container.

    Args:
        root: The root of the file system in which Linux says so (/proc/meminfo, cgroup v2).

    Returns:
        None where nothing says it.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        [free] = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
    except (OSError, ValueError):
        return None
    group = root / "sys/fs/cgroup"
    try:
        limit, taken = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        # Pages of files are let go when there is need.
        lines = (group / "memory.stat").read_text().splitlines()
        [cached] = [int(line.split()[1]) for line in lines if line.startswith("inactive_file ")]
        return min(free, max(0, limit - taken + cached))
    except (OSError, ValueError):  # no group, or a limit that is `max`
        return free


def limit_memory(num_bytes: int) -> None:
    """Let this process ask for so much more memory and no more.

    What exceeds it is an error that `Predictor` catches, so that one image gets no mask; without
    the limit the kernel kills the process, and whoever restarts it meets the image again.

    Args:
        num_bytes: Of private memory, on top of what the process has by now (Linux, RLIMIT_DATA).
    """
    with open("/proc/self/statm", encoding="ascii") as file:
        data_pages = int(file.read().split()[5])
    limit = data_pages * resource.getpagesize() + num_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
