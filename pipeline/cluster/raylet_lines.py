"""What Ray's nodes say to a driver of its tasks: lines of our log, and not of its stdout."""

import logging
from collections.abc import Mapping
from typing import Any

import ray._private.worker

from pipeline.ending import is_stopping

_log = logging.getLogger(__name__)


def log_raylet_lines() -> None:
    """Log what Ray would print on stdout, in colours, whatever `log_to_driver` says.

    A task that failed and is tried again is one such line, for each call that a replica had in
    hand. There is no setting for them, so the function that prints them is replaced.
    """
    ray._private.worker.print_to_stdstream = _Lines()  # noqa: SLF001 - as above


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
