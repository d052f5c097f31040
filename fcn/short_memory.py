"""What errors say when memory is short: not every library has a class for it."""

import re

_OUT_OF_MEMORY = (
    "not enough memory",
    "can't allocate memory",
    "could not create a primitive",
    "CUDA out of memory",
    "CUDA error: out of memory",
    # Of Triton, and of CUDA's driver.
    "[CUDA]: out of memory",
    "CUDA driver error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
)
_CUDNN_OUT_OF_MEMORY = re.compile(r"CUDNN_STATUS_\w*ALLOC(ATION)?_FAILED")
# What cuDNN says when no way to compute finds the workspace that it needs, and of what it can't
# compute at all; cuBLAS, when there is no room for its handle, and when something else is wrong.
_PERHAPS_OUT_OF_MEMORY = (
    "unable to find an engine to execute this computation",
    "CUBLAS_STATUS_NOT_INITIALIZED",
)


def tells_of_short_memory(message: str, *, smallest: bool = True) -> bool:
    """Say whether an error tells that there is no memory for some work.

    Args:
        message: Of the error.
        smallest: Whether there is no smaller piece of the work: what may be want of memory, and may
            be another error, is the other then.
    """
    if any(words in message for words in _PERHAPS_OUT_OF_MEMORY):
        return not smallest
    known = any(words in message for words in _OUT_OF_MEMORY)
    return known or _CUDNN_OUT_OF_MEMORY.search(message) is not None
