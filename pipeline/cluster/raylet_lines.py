"""What Ray says to a driver past all logging: lines of our log, or none."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray._private.worker

from pipeline.ending import is_stopping

_log = logging.getLogger(__name__)

_LEVEL = "RAY_BACKEND_LOG_LEVEL"
_STDERR = 2


def log_raylet_lines() -> None:
    """Log what Ray would print on stdout, in colours, whatever `log_to_driver` says.

    A task that failed and is tried again is one such line, for each call that a replica had in
    hand. There is no setting for them, so the function that prints them is replaced.
    """
    ray._private.worker.print_to_stdstream = _Lines()  # noqa: SLF001 - as above


@contextmanager
def quiet_core() -> Iterator[None]:
    """Keep Ray's C++ code in this process from writing its errors to stderr; its last words stay.

    At each start it calls it an error that replicas may be restarted at all. There is no setting
    for this process alone, so that the variable stands while the process connects, when that code
    reads it, and not while Ray's own processes start. Whoever has set it is left alone.
    """
    worker = ray._private.worker  # noqa: SLF001 - as above
    connect = worker.connect

    def connect_quietly(*given: Any, **named: Any) -> Any:
        if _LEVEL in os.environ:
            return connect(*given, **named)
        os.environ[_LEVEL] = "fatal"
        try:
            with _without_its_line():
                return connect(*given, **named)
        finally:
            del os.environ[_LEVEL]

    worker.connect = connect_quietly
    try:
        yield
    finally:
        worker.connect = connect


@contextmanager
def _without_its_line() -> Iterator[None]:
    """Leave out the line with which it says that it has read the variable."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as said, os.fdopen(os.dup(_STDERR), "wb") as before:
        os.dup2(said.fileno(), _STDERR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before.fileno(), _STDERR)
            said.seek(0)
            before.writelines(line for line in said if _LEVEL.encode() not in line)


class _Lines:
    """Says a text once, and nothing while the command ends: Ray's tasks fail then as they must."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, data: Mapping[str, Any], ignore_prefix: bool) -> None:  # noqa: ARG002, FBT001 - Ray's
        for line in data["lines"]:
            text = " ".join(line.split())
            if text not in self._said and not is_stopping():
                self._said.add(text)
                _log.warning("Ray (%s): %s", data["pid"], text)
