"""A watchdog: ends a process that hangs in foreign code, also where no Python can run.

A thread looks every few seconds at what is being done, and winds up a timer of C
(`faulthandler.dump_traceback_later`) that needs no interpreter's lock: where a call never lets go
of the lock, the thread can't wind it up again, and the timer ends the process. Work that is well
costs an entry in a set.
"""

import faulthandler
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from pipeline.processes import stat_of_thread

_log = logging.getLogger(__name__)

_EXIT_CODE = 70
_LONGEST_BEAT_S = 5.0
# On a machine that is too busy to run a thread, it gets so many times its limit.
_STARVING = 10


class _Watched:
    """What a thread does, from `with` on; light, since each image has two."""

    __slots__ = ("_all", "_cpu_s", "_limit_s", "_since_s", "_thread_id", "what")

    def __init__(self, watched: "set[_Watched]", what: str, limit_s: float) -> None:
        self._all = watched
        self._limit_s = limit_s
        self._cpu_s: float | None = None
        self.what = what

    def __enter__(self) -> None:
        self._thread_id = threading.get_native_id()
        self._since_s = time.monotonic()
        self._all.add(self)

    def __exit__(self, *_: object) -> None:
        self._all.discard(self)

    def hangs(self) -> bool:
        """Say whether it is over its limit, and not for want of a processor; called at each beat.

        Its seconds of CPU count from the first beat that sees it.
        """
        now = stat_of_thread(self._thread_id)
        if self._cpu_s is None and now is not None:
            self._cpu_s = now.cpu_s
        took_s = time.monotonic() - self._since_s
        if now is None or took_s <= self._limit_s:
            return False
        starved = now.starved(self._cpu_s or 0.0, self._limit_s / 2)
        return took_s > _STARVING * self._limit_s or not starved


class Watchdog:
    """Watches what the threads of this process do, while there is something."""

    def __init__(self, lock_limit_s: float) -> None:
        """Set the limit, without starting.

        Args:
            lock_limit_s: Seconds that the interpreter's lock may be held by one call.
        """
        self._lock_limit_s = lock_limit_s
        self._watched: set[_Watched] = set()
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

    def limit(self, what: str, limit_s: float) -> AbstractContextManager[None]:
        """Return what ends the process if the block lasts longer.

        Args:
            what: Is done there, for the log.
            limit_s: Seconds it may take.
        """
        return _Watched(self._watched, what, limit_s)

    def _watch(self, asleep: threading.Event) -> None:
        beat_s = min(_LONGEST_BEAT_S, self._lock_limit_s / 4)
        while not asleep.is_set():
            # The number of stderr: what stands for it in Python may have none.
            faulthandler.dump_traceback_later(self._lock_limit_s + beat_s, exit=True, file=2)
            for watched in list(self._watched):
                if watched.hangs():
                    _end(watched.what)
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
