"""What the lines of this process's log belong to: a run and an attempt, once they are known."""

from typing import Any

_known: dict[str, Any] = {}


def belong_to(run: str, attempt: int) -> None:
    """Let all further lines belong to a run.

    Args:
        run: Its name.
        attempt: Number of the lock of the command at work.
    """
    _known.update(run=run, attempt=attempt)


def belong_to_no_run() -> None:
    """Forget the run: another command may follow in this process."""
    _known.clear()


def belonging() -> dict[str, Any]:
    """Return what a line belongs to; None where that is not known. A line names its own shard."""
    return {"run": None, "shard": None, "attempt": None, **_known}
