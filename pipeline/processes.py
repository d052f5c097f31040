"""What the system says of a process or a thread (Linux, proc(5))."""

import os
from dataclasses import dataclass

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# In proc(5) these are fields 3, 14, 15 and 22; the list begins after the name, which is field 2.
_STATE, _USER, _SYSTEM, _STARTED = 0, 11, 12, 19
_WANTS_TO_RUN = "RD"


@dataclass(frozen=True)
class Stat:
    """A process or thread.

    Attributes:
        state: One letter: R runs or would like to, D waits for a disk, S sleeps, Z is dead.
        cpu_s: Seconds that it has had a processor.
        started: When it was started, in ticks since the system was.
    """

    state: str
    cpu_s: float
    started: int

    def starved(self, before_s: float, share_s: float) -> bool:
        """Return whether it would run, and has not had a processor for that long.

        Args:
            before_s: Its `cpu_s` at the beginning.
            share_s: Seconds that it should have had since.
        """
        return self.state in _WANTS_TO_RUN and self.cpu_s - before_s < share_s


def stat_of_process(pid: int) -> Stat | None:
    """Look a process up; None if there is none."""
    return _read(f"/proc/{pid}/stat")


def stat_of_thread(thread_id: int) -> Stat | None:
    """Look up a thread of this process by the system's number; None if there is none."""
    return _read(f"/proc/self/task/{thread_id}/stat")


def _read(path: str) -> Stat | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            # The name is in parentheses, and may hold some.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    cpu = int(fields[_USER]) + int(fields[_SYSTEM])
    return Stat(fields[_STATE], cpu / _TICKS_PER_S, int(fields[_STARTED]))
