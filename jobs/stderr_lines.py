"""What libraries write to stderr past all logging: Ray's C++ code does, and so does `print`."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, TextIO

_STDERR = 2
_END = b"\0end of the lines\n"


@contextmanager
def stderr_as_lines(tell: Callable[[str], None]) -> Iterator[TextIO]:
    """Take in what anybody in this process writes to file descriptor 2, until the block ends.

    What the process writes while it crashes may be lost.

    Args:
        tell: Is called with each line, in a thread of its own.

    Yields:
        The stderr that was there before.
    """
    sys.stderr.flush()
    before = os.dup(_STDERR)
    reading, writing = os.pipe()
    os.dup2(writing, _STDERR)
    lines = os.fdopen(reading, "rb")
    thread = threading.Thread(target=_tell, args=(lines, tell), name="stderr", daemon=True)
    thread.start()
    with os.fdopen(before, "w", encoding="utf-8", errors="backslashreplace") as stream:
        try:
            yield stream
        finally:
            sys.stderr.flush()
            os.dup2(before, _STDERR)
            # Processes that were started meanwhile may hold the pipe: it would not be seen to end.
            os.write(writing, _END)
            os.close(writing)
            thread.join()


def _tell(lines: BinaryIO, tell: Callable[[str], None]) -> None:
    for line in lines:
        head, end, _ = line.partition(_END)
        if text := head.decode(errors="backslashreplace").rstrip():
            tell(text)
        if end:
            return
