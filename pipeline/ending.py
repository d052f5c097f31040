"""How a command ends that is told to, or has to: in order if it can, and in time.

Python code may swallow what a signal raises, threads may wait for a store that does not answer,
and Ray for a head that is gone. Whoever waits for the process waits no longer than the grace time.
"""

import atexit
import logging
import os
import signal
import sys
import threading
import types
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from pipeline.errors import Stopped

_log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Before there is work, nothing has to be put away.
START_GRACE_S = 8.0
# Less than the 30 s after which Kubernetes kills by default.
WORK_GRACE_S = 25.0


def stop_on_signals(grace_s: float, at_last: Callable[[], None] | None = None) -> None:
    """Let SIGTERM and SIGINT end the command in order, as `Stopped`; further ones change nothing.

    `timeout` and process managers send more than one, which must not cut the ending short.

    Args:
        grace_s: Seconds after which the process leaves as it is, with the same exit code.
        at_last: What is done then, before.
    """

    def stop(number: int, _: types.FrameType | None) -> None:
        name = signal.Signals(number).name
        for one in _SIGNALS:
            signal.signal(one, signal.SIG_IGN)
        end_within(grace_s, name, at_last)
        raise Stopped(name)

    for one in _SIGNALS:
        signal.signal(one, stop)


def keep_code(code: int) -> None:
    """Let SIGTERM and SIGINT change nothing any more but the wait: the command is done.

    Python waits for threads at its end and then gives signals their own way back, which would be
    the process's exit code.

    Args:
        code: The exit code, with which a signal ends the process at once.
    """

    def leave(_: int, __: types.FrameType | None) -> NoReturn:
        leave_at_once(code)

    for one in _SIGNALS:
        if signal.getsignal(one) is not signal.SIG_IGN:
            signal.signal(one, leave)
    atexit.register(_ignore)


def _ignore() -> None:
    for one in _SIGNALS:
        signal.signal(one, signal.SIG_IGN)


def is_stopping() -> bool:
    """Return whether a signal has been taken by what `stop_on_signals` has set up."""
    return all(signal.getsignal(one) is signal.SIG_IGN for one in _SIGNALS)


def leave_at_once(code: int, at_last: Callable[[], None] | None = None) -> NoReturn:
    """End the process with a code, past what Python and its libraries do at exit.

    Args:
        code: The exit code.
        at_last: What is done before.
    """
    if at_last is not None:
        at_last()
    for stream in (sys.stdout, sys.stderr):
        # A signal may have come while just this stream was written to.
        with suppress(RuntimeError, OSError, ValueError):
            stream.flush()
    os._exit(code)


def end_within(grace_s: float, reason: str, at_last: Callable[[], None] | None = None) -> None:
    """End the process with 5 if it has not ended by itself.

    Args:
        grace_s: Seconds from now.
        reason: Why it ends.
        at_last: What is done before.
    """

    def leave() -> NoReturn:
        _log.error(
            "not ended %g s after %s: leaving as it is; what is committed stays; run the same "
            "command again to resume",
            *said,
        )
        # An end in order is what has not come: its threads and Ray's would be waited for again.
        leave_at_once(Stopped.exit_code, at_last)

    said = (grace_s, reason)
    timer = threading.Timer(grace_s, leave)
    timer.daemon = True
    timer.start()


def raise_in_main_thread(error: BaseException) -> Callable[[], None]:
    """Prepare to raise an error in the main thread, also where it waits in foreign code.

    Args:
        error: Is raised there once what is returned is called, from any thread.
    """

    def raise_it(_: int, __: types.FrameType | None) -> None:
        raise error

    signal.signal(signal.SIGUSR1, raise_it)
    main = threading.main_thread()
    return lambda: signal.pthread_kill(main.ident or 0, signal.SIGUSR1)
