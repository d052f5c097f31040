"""Decode in a process of its own, which a picture may kill or hang without harm.

Slower than decoding in threads: for pictures under suspicion only. The process imports no network.
"""

import faulthandler
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from types import TracebackType
from typing import Any, Self, TypeVar

from pipeline.errors import ClusterLost, ErrorCode, ImageError
from pipeline.processes import stat_of_process

_T = TypeVar("_T")

# A process that has only to import the decoders, on a busy machine with a cold disk.
_START_S = 120.0
# The process ends itself where its parent is gone and can't.
_AFTER_PARENT_S = 5.0
# On a machine that is too busy to run it, a process gets so many times its limit: a picture is not
# slow because others are.
_STARVING = 10
# The kernel ends processes when memory is short, and may take an innocent one.
_DEATHS_OF_A_CULPRIT = 2


class IsolatedDecoder:
    """A child process that decodes one picture at a time; is started anew when it has died."""

    def __init__(self, limit_s: float) -> None:
        """Set the limit; the process starts with the first picture.

        Args:
            limit_s: Seconds that one call may take.
        """
        self._limit_s = limit_s
        self._child: _Child | None = None
        self._one_at_a_time = threading.Lock()

    def __enter__(self) -> Self:
        """Hold the process."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the process."""
        self._end()

    def call(self, function: Callable[..., _T], *arguments: object) -> _T:
        """Call a function in the process, from any thread.

        Args:
            function: Of a module, by whose name the process finds it.
            arguments: Travel, as what it returns does.

        Raises:
            ImageError: As the function; `crashed` if the process dies of it each time, `too_slow`
                if it takes longer than the limit.
            ClusterLost: The process can't be started on this machine.
        """
        with self._one_at_a_time:
            for _ in range(_DEATHS_OF_A_CULPRIT):
                if self._child is None:
                    self._child = self._started()
                try:
                    worked, answer = self._child.ask((function, arguments), self._limit_s)
                except TimeoutError:
                    self._end()
                    raise self._too_slow() from None
                except (EOFError, OSError):
                    ended = self._end()
                    continue
                if not worked:
                    raise answer
                found: _T = answer
                return found
        raise ImageError(
            ErrorCode.CRASHED,
            f"its decoder died of {ended} in {_DEATHS_OF_A_CULPRIT} of {_DEATHS_OF_A_CULPRIT} "
            "processes of its own",
        )

    def _started(self) -> "_Child":
        """Start the process; that the machine can't is true of no image. Raises ClusterLost."""
        try:
            return _Child(_STARVING * self._limit_s + _AFTER_PARENT_S)
        except (OSError, EOFError) as error:
            raise ClusterLost(
                f"a process to decode in could not be started: {error or type(error).__name__}; "
                "is the node short of memory or processes?"
            ) from error

    def _too_slow(self) -> ImageError:
        return ImageError(
            ErrorCode.TOO_SLOW,
            f"its decoder took longer than {self._limit_s:g} s (max_image_s)",
        )

    def _end(self) -> str:
        child, self._child = self._child, None
        return child.end() if child is not None else ""


class _Child:
    def __init__(self, end_after_s: float) -> None:
        self._pipe, theirs = Pipe()
        command = [sys.executable, "-m", __name__, str(theirs.fileno()), str(end_after_s)]
        path = os.pathsep.join(part for part in sys.path if part)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": path},
            )
        started = self._pipe.poll(_START_S) and self._pipe.recv()
        if not started:
            raise TimeoutError(f"{command} did not start within {_START_S:g} s")

    def ask(self, request: tuple[Any, ...], limit_s: float) -> tuple[bool, Any]:
        """Send a request and wait for its answer; raises TimeoutError, EOFError, OSError."""
        begun = stat_of_process(self._process.pid)
        self._pipe.send(request)
        for _ in range(_STARVING):
            if self._pipe.poll(limit_s):
                break
            now = stat_of_process(self._process.pid)
            if begun is None or now is None or not now.starved(begun.cpu_s, limit_s / 2):
                raise TimeoutError
        else:
            raise TimeoutError
        answer: tuple[bool, Any] = self._pipe.recv()
        return answer

    def end(self) -> str:
        """End the process and say what it died of, if it had."""
        self._pipe.close()
        self._process.kill()
        code = self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def serve(pipe: "Connection[Any, Any]", end_after_s: float) -> None:
    """Answer calls until the other end is closed.

    Args:
        pipe: Gives (function, arguments), takes (whether it worked, what came of it).
        end_after_s: Seconds in one call after which the process ends, be it that no Python runs.
    """
    pipe.send(True)  # noqa: FBT003 - a message
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        faulthandler.dump_traceback_later(end_after_s, exit=True)
        pipe.send(_answer(function, arguments))
        faulthandler.cancel_dump_traceback_later()


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    try:
        return True, function(*arguments)
    except Exception as error:  # noqa: BLE001 - it is raised again in the other process
        return False, error


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), float(sys.argv[2]))
