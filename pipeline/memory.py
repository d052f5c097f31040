"""Freed memory goes back to the system, so that a process is as large as what it holds.

Pictures and rows come and go in many threads, and glibc keeps their pieces: without this driver
and replica grow with the number of images (docs/performance.md).
"""

import ctypes


def release_free_memory() -> None:
    """Give back what is free (glibc's `malloc_trim`); other C libraries have no such call."""
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)
