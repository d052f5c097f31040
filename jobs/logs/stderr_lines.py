"""What libraries write to stderr past all logging: Ray's C++ code does, and so does `print`."""

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, TextIO

_STDERR = 2
_LOOK_S = 0.2


@contextmanager
def stderr_as_lines(tell: Callable[[str], None]) -> Iterator[TextIO]:
    """Take in what anybody in this process writes to file descriptor 2, until the block ends.

    It goes through a file, which never makes a writer wait as a full pipe would, and takes what
    processes write that live longer. What the process writes while it crashes is lost.

    Args:
        tell: Is called with each line, in a thread of its own.

    Yields:
        The stderr that was there before.
    """
    sys.stderr.flush()
    ended = threading.Event()
    with (
        tempfile.NamedTemporaryFile("ab") as written,
        open(written.name, "rb") as lines,
        os.fdopen(os.dup(_STDERR), "w", encoding="utf-8", errors="backslashreplace") as before,
    ):
        os.dup2(written.fileno(), _STDERR)
        thread = threading.Thread(target=_follow, args=(lines, tell, ended), name="stderr")
        thread.daemon = True
        thread.start()
        try:
            yield before
        finally:
            sys.stderr.flush()
            os.dup2(before.fileno(), _STDERR)
            ended.set()
            thread.join()


def _follow(lines: BinaryIO, tell: Callable[[str], None], ended: threading.Event) -> None:
    part = b""
    while True:
        last = ended.wait(_LOOK_S)
        *whole, part = (part + lines.read()).split(b"\n")
        for line in [*whole, part] if last else whole:
            if text := line.decode(errors="backslashreplace").rstrip():
                tell(text)
        if last:
            return
