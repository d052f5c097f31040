"""Scratch: a temporary folder that goes with its process, however that ends.

A process that is killed can't remove its folder, and a planner's may hold many GB. The next one
on the node removes it: the lock that a live process holds on its folder ends with the process.
"""

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

from pipeline.errors import SettingError

_PREFIX = "fcn-plan-"
# A folder is there for a moment before its lock is.
_MIN_AGE_S = 60.0


class Scratch:
    """A folder of this process."""

    def __init__(self) -> None:
        """Make the folder, and remove those of processes that are gone.

        Raises:
            OSError: The folder for temporary files can't be written.
        """
        _remove_abandoned()
        self.path = tempfile.mkdtemp(prefix=_PREFIX)
        self._lock = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def no_room(error: Exception) -> SettingError:
    """Build the error for a temporary folder that is full, or can't be written.

    Args:
        error: What its writer says.
    """
    # DuckDB goes on with settings of its own, which nobody can reach here.
    reason = str(error).partition("\n")[0]
    return SettingError(
        f"a temporary folder with room is needed: {reason}; set the environment variable TMPDIR to "
        "a folder on a larger disk"
    )


def _remove_abandoned() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            _remove_if_abandoned(folder)
        except OSError:
            continue  # another user's, or gone by now


def _remove_if_abandoned(folder: Path) -> None:
    if time.time() - folder.stat().st_mtime < _MIN_AGE_S:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)
