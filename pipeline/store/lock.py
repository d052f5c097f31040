"""A lock object with a heartbeat, so that two schedulers do not waste GPUs on one run.

Correctness never depends on it: commits are put-if-absent. Each holder is one object,
locks/<name>/000001.json, 000002.json, ...; the highest number counts. Taking the lock is
creating the next number, which the store lets only one do. Nothing is ever deleted, so that a
writer needs no right to delete. No two clocks are compared: a waiting process watches whether
the heartbeat moves.
"""

import json
import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from pipeline.errors import LockHeld, StoreError
from pipeline.store.attempts import Pace
from pipeline.store.storage import Storage

_log = logging.getLogger(__name__)


class Lock:
    """Held inside a `with` block.

    Entering raises LockHeld if another process holds the lock and is alive; it waits one lease
    to see whether it is. `check` raises LockHeld if the lock was lost since.

    Attributes:
        number: The number of the holders so far, this one included; 0 before it is taken.
    """

    def __init__(self, storage: Storage, folder_uri: str, lease_s: float) -> None:
        """Name the lock, without taking it.

        Args:
            storage: Reads and writes the lock.
            folder_uri: One folder per lock.
            lease_s: Seconds without a heartbeat after which the holder is taken for dead.
        """
        self._storage = storage
        # A heartbeat that comes later than the lease is worth nothing; the next one is due.
        patience_s = min(storage.patience_s, lease_s / 3)
        # A pace of its own: what is too late for the lock is not for those who do the work.
        self._hasty = replace(storage, patience_s=patience_s, pace=Pace(heard=True))
        self._folder = folder_uri
        self._lease_s = lease_s
        self.number = 0
        self._beats = 0
        self._me = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._lost = threading.Event()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lock-heartbeat", daemon=True)

    def __enter__(self) -> Self:
        """Take the lock."""
        latest = self._latest()
        if latest:
            self._wait_for_death(latest)
        self.number = latest + 1
        if not self._storage.create(self._uri(self.number), self._content()):
            raise self._held(self._read(self.number))
        if not self._storage.conditional_put:
            self._settle()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the lock, unless it was lost."""
        self._released.set()
        self._thread.join()
        if self._lost.is_set():
            return
        try:
            # Of heartbeats that a kill has cut off; as long as the lock is held nobody else writes.
            self._storage.remove_leftovers(self._folder)
            self._hasty.write(self._uri(self.number), self._content(released=True))
        except StoreError as problem:
            # The work is judged by what it did; a lock that stays is taken over after its lease.
            _log.warning("the lock could not be released: %s", problem)

    def check(self) -> None:
        """Raise LockHeld if another process has taken the lock over."""
        if self._lost.is_set():
            raise self._held(self._read(self.number + 1))

    def _wait_for_death(self, number: int) -> None:
        first = self._read(number)
        # The holder beats at the pace of its own lease, which may be the longer one.
        lease_s = max(self._lease_s, float(first.get("lease_s", 0)))
        deadline = time.monotonic() + lease_s
        if not first.get("released"):
            _log.info(
                "the lock is held by %s; waiting up to %.0f s for a sign of life",
                first.get("holder"),
                lease_s,
            )
        while not (seen := self._read(number)).get("released"):
            if seen != first or self._latest() != number:
                raise self._held(seen)
            if time.monotonic() > deadline:
                _log.warning("no sign of life of %s: taking its lock over", first.get("holder"))
                return
            time.sleep(min(1.0, self._lease_s / 10))

    def _settle(self) -> None:
        # Without put-if-absent two processes may both have written: the later one stands.
        time.sleep(min(2.0, self._lease_s / 3))
        standing = self._read(self.number)
        if standing.get("holder") != self._me:
            raise self._held(standing)

    def _beat(self) -> None:
        while not self._released.wait(self._lease_s / 3):
            try:
                if self._latest() > self.number:
                    self._lost.set()
                    return
                self._beats += 1
                self._hasty.write(self._uri(self.number), self._content())
            except StoreError as error:
                # The work itself will meet the same store and judge; a lock is a courtesy.
                _log.warning("no heartbeat for the lock: %s", error)

    def _latest(self) -> int:
        names = self._storage.children(self._folder)
        numbers = [int(name.removesuffix(".json")) for name in names if name[:6].isdecimal()]
        return max(numbers, default=0)

    def _read(self, number: int) -> dict[str, Any]:
        try:
            content = json.loads(self._storage.read(self._uri(number)))
        except ValueError:
            # Cut off by a crash of the machine: nobody who lives wrote this.
            return {}
        return content if isinstance(content, dict) else {}

    def _content(self, *, released: bool = False) -> bytes:
        fields = {
            "holder": self._me,
            "lease_s": self._lease_s,
            "beat": self._beats,
            "released": released,
        }
        return json.dumps(fields).encode()

    def _uri(self, number: int) -> str:
        return f"{self._folder}/{number:06d}.json"

    def _held(self, content: dict[str, Any]) -> LockHeld:
        return LockHeld(
            f"{content.get('holder')} (host:process) is already working on the same thing; "
            f"wait for it, or stop it (its lock: {self._folder})"
        )
