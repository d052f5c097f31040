"""Processes of Ray that a killed command has left on this machine.

A Ray that is started for one command is told so in the environment of all its processes, with the
number of the command's process and when that was started: so the next command knows which of them
nobody minds any more, whatever they call themselves.
"""

import logging
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from pipeline.processes import stat_of_process

_log = logging.getLogger(__name__)

_OWNER = "_FCN_PIPELINE_COMMAND"
_DEAD = "ZX"


@contextmanager
def marked_as_mine() -> Iterator[None]:
    """Mark the processes that are started in the block as those of this process."""
    os.environ[_OWNER] = _name(os.getpid())
    try:
        yield
    finally:
        os.environ.pop(_OWNER, None)


def end_mine() -> None:
    """Kill the processes of the Ray that was started for this one."""
    _end(lambda owner: owner == _name(os.getpid()))


def end_leftovers() -> None:
    """Kill the processes of Rays whose command is dead: of this user, on this machine."""
    number = _end(lambda owner: not _is_alive(owner))
    if number:
        _log.warning("%d process(es) of Ray ended that a killed command had left", number)


def _name(pid: int) -> str:
    found = stat_of_process(pid)
    started = 0 if found is None or found.state in _DEAD else found.started
    return f"{pid}:{started}"


def _is_alive(owner: str) -> bool:
    # Numbers of processes come again.
    return _name(int(owner.partition(":")[0])) == owner


def _end(is_meant: Callable[[str], bool]) -> int:
    number = 0
    for pid, owner in _marked():
        if is_meant(owner):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                number += 1
    return number


def _marked() -> Iterator[tuple[int, str]]:
    """List the processes with a mark, and whose they are; those of other users can't be read."""
    prefix = f"{_OWNER}=".encode()
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                variables = file.read().split(b"\0")
        except OSError:
            continue
        for variable in variables:
            owner = variable.removeprefix(prefix)
            if owner != variable and re.fullmatch(rb"\d+:\d+", owner):
                yield int(name), owner.decode()
