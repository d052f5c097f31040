"""Freed memory goes back to the system, so that a process is as large as what it holds.

Pictures and tables come and go in many threads, and allocators keep their pieces: without this
both driver and replica grow with the number of images (docs/performance.md).
"""

import ctypes

import pyarrow as pa


def use_one_allocator() -> None:
    """Let Arrow take its memory from the C library too, instead of hoarding its own."""
    pa.set_memory_pool(pa.system_memory_pool())


def release_free_memory() -> None:
    """Give back what is free (glibc's `malloc_trim`); other C libraries have no such call."""
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)
