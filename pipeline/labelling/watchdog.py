"""A watchdog: ends a process that hangs in foreign code, also where no Python can run.

A thread looks every few seconds at what is being done, and winds up a timer of C
(`faulthandler.dump_traceback_later`) that needs no interpreter's lock: where a call never lets go
of the lock, the thread can't wind it up again, and the timer ends the process. Work that is well
costs two entries in a dict.
"""

import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_log = logging.getLogger(__name__)

_EXIT_CODE = 70
_LONGEST_BEAT_S = 5.0


class Watchdog:
    """Watches what the threads of this process do, while there is something."""

    def __init__(self, lock_limit_s: float) -> None:
        """Set the limit, without starting.

        Args:
            lock_limit_s: Seconds that the interpreter's lock may be held by one call.
        """
        self._lock_limit_s = lock_limit_s
        self._until: dict[object, tuple[float, str]] = {}
        self._num_awake = 0
        self._changing = threading.Lock()
        self._asleep = threading.Event()

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Watch for as long as the block lasts, in whichever thread."""
        with self._changing:
            self._num_awake += 1
            if self._num_awake == 1:
                self._asleep = threading.Event()
                threading.Thread(
                    target=self._watch, args=(self._asleep,), name="watchdog", daemon=True
                ).start()
        try:
            yield
        finally:
            with self._changing:
                self._num_awake -= 1
                if not self._num_awake:
                    self._asleep.set()

    @contextmanager
    def limit(self, what: str, limit_s: float) -> Iterator[None]:
        """End the process if the block lasts longer.

        Args:
            what: Is done there, for the log.
            limit_s: Seconds it may take.
        """
        key = object()
        self._until[key] = (time.monotonic() + limit_s, what)
        try:
            yield
        finally:
            del self._until[key]

    def _watch(self, asleep: threading.Event) -> None:
        beat_s = min(_LONGEST_BEAT_S, self._lock_limit_s / 4)
        while not asleep.is_set():
            # The number of stderr: what stands for it in Python may have none.
            faulthandler.dump_traceback_later(self._lock_limit_s + beat_s, exit=True, file=2)
            for until, what in list(self._until.values()):
                if time.monotonic() > until:
                    _end(what)
            asleep.wait(beat_s)
        with self._changing:
            if asleep is self._asleep:
                faulthandler.cancel_dump_traceback_later()


def _end(what: str) -> None:
    _log.error("%s hangs, and this process with it: it ends", what)
    faulthandler.dump_traceback(file=2)
    sys.stderr.flush()
    # Nothing else ends a thread that is in foreign code, and an exit would wait for it.
    os._exit(_EXIT_CODE)
