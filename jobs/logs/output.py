"""What commands print: their result, on stdout. The log goes to stderr."""

import os
import sys


def say(text: str, end: str = "\n") -> None:
    """Print a result; a reader that has gone (`| head`) changes nothing of what was done.

    Args:
        text: Lines for a person.
        end: What follows them.
    """
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError:
        # As the documentation of Python's signal module says; else the interpreter complains at
        # its end, with an exit code of its own.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
