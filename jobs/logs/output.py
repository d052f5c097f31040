"""What commands print: their result, on stdout. The log goes to stderr."""

import os
import sys

from pipeline.errors import ErrorCode, StoreError


def say(text: str, end: str = "\n") -> None:
    """Print a result; a reader that has gone (`| head`) changes nothing of what was done.

    Args:
        text: Lines for a person.
        end: What follows them.

    Raises:
        StoreError: It can't be written, as to a file on a disk that is full.
    """
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        # As the documentation of Python's signal module says; else the interpreter complains at
        # its end, with an exit code of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            message = f"what the command prints can't be written: {error.strerror}"
            raise StoreError(ErrorCode.TIMEOUT, message) from error
