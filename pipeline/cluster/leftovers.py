"""Processes of Ray that a killed command has left on this machine.

A Ray that is started for one command is told so in the environment of its processes and in the
folder that they log to, with the number of the command's process, when that was started, and in
which namespace of process numbers: so the next command knows which of them have no owner left.
What another container has started is not judged: its numbers mean something else here.
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


def mark_session(folder: str) -> None:
    """Mark a session of Ray as that of this process.

    Args:
        folder: The folder of the session, where its processes log to.
    """
    with open(os.path.join(folder, _OWNER), "x", encoding="utf-8") as file:
        file.write(_name(os.getpid()))


def whose_session(folder: str) -> int | None:
    """Return the number of the process that a session of Ray was started for; None for a cluster's.

    Args:
        folder: The folder of the session.
    """
    try:
        with open(os.path.join(folder, _OWNER), encoding="utf-8") as file:
            return int(file.read().partition(":")[0])
    except (OSError, ValueError):
        return None


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
    return f"{pid}:{started}:{_namespace()}"


def _namespace() -> str:
    return re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))


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
    here = _namespace()
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            with suppress(OSError):
                owner = _of_environment(name) or _of_session(name)
                if re.fullmatch(rf"\d+:\d+:{here}", owner):
                    yield int(name), owner


def _of_environment(pid: str) -> str:
    prefix = f"{_OWNER}=".encode()
    with open(f"/proc/{pid}/environ", "rb") as file:
        variables = file.read().split(b"\0")
    found = (one.removeprefix(prefix) for one in variables if one.startswith(prefix))
    return next(found, b"").decode(errors="replace")


def _of_session(pid: str) -> str:
    """Read the mark of the session that a process logs to: a new name of its may hide the first."""
    # What a process says goes there; whoever else has a log open is reading it.
    files = []
    for one in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):  # it was closed meanwhile
            if _is_written(pid, one):
                files.append(os.readlink(f"/proc/{pid}/fd/{one}"))
    logs = (file.partition("/logs/") for file in files)
    for session in {session for session, found, _ in logs if found}:
        path = os.path.join(session, _OWNER)
        if os.path.isfile(path) and os.stat(path).st_uid == os.getuid():
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read()
    return ""


def _is_written(pid: str, descriptor: str) -> bool:
    """Return whether a process may write to one of its open files (proc(5), fdinfo)."""
    with open(f"/proc/{pid}/fdinfo/{descriptor}", encoding="ascii") as file:
        flags = next(line for line in file if line.startswith("flags:"))
    return int(flags.partition(":")[2], 8) & os.O_ACCMODE != os.O_RDONLY
