"""Reading for a page: with one end for all of it, in threads that nobody has to wait for.

The masks are there and the run is done. So a page waits for a store as long as people wait for a
page, and a request that hangs keeps neither the page nor the process from its end.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue
from threading import Event, Thread
from typing import Self, TypeVar

from pipeline.labelling.runs import Run
from pipeline.store.attempts import Pace

# A page is no reason to wait for a store: less patience than the work has.
_ATTEMPTS, _PATIENCE_S = 3, 5.0

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Deadline:
    """A moment, by a clock that nobody sets."""

    moment: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """Set a deadline that is so many seconds from now."""
        return cls(time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds until then; 0 when it is over."""
        return max(0.0, self.moment - time.monotonic())

    def within(self, seconds: float) -> "Deadline":
        """Return this one, or so many seconds from now if that is earlier."""
        return Deadline(min(self.moment, time.monotonic() + seconds))


class Reads:
    """Reads under way, some at a time, as long as there is time."""

    def __init__(self, deadline: Deadline, number: int) -> None:
        """Begin.

        Args:
            deadline: After which no answer is waited for.
            number: Of reads at a time.
        """
        self.deadline = deadline
        self._number = number
        self._asked: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._over = Event()
        for _thread in range(number):
            # The executors of Python are joined when the process ends, hang what may.
            Thread(target=self._work, name="page", daemon=True).start()

    def __enter__(self) -> Self:
        """Do nothing more."""
        return self

    def __exit__(self, *_of: object) -> None:
        """Wait for nothing any more, and begin nothing that was asked for."""
        self._over.set()
        # Whoever waits for something to do is told that there is nothing.
        for _thread in range(self._number):
            self._asked.put(lambda: None)

    def ask(self, read: Callable[[], _Answer]) -> "Future[_Answer]":
        """Ask for something without waiting for it.

        Args:
            read: Is called in a thread.
        """
        answer: Future[_Answer] = Future()
        self._asked.put(partial(_answer, answer, read))
        return answer

    def wait(self, answer: "Future[_Answer]") -> _Answer:
        """Wait for what was asked for. Raises TimeoutError, or whatever reading it has raised."""
        return answer.result(self.deadline.left)

    def answers(self, reads: Iterable[Callable[[], _Answer]]) -> Iterator[_Answer]:
        """Ask for one thing after the other, and hold no more answers than reads at a time.

        Args:
            reads: Are called in threads.

        Returns:
            The answers, in order; what reading one has raised is raised in its place, and
            TimeoutError when the time is up.
        """
        waiting: deque[Future[_Answer]] = deque()
        for read in reads:
            waiting.append(self.ask(read))
            if len(waiting) == self._number:
                yield self._next(waiting)
        while waiting:
            yield self._next(waiting)

    def _next(self, waiting: "deque[Future[_Answer]]") -> _Answer:
        if not self.deadline.left:
            # What is done with each answer takes its time, too.
            raise TimeoutError
        return self.wait(waiting.popleft())

    def _work(self) -> None:
        while not self._over.is_set():
            self._asked.get()()


def _answer(answer: "Future[_Answer]", read: Callable[[], _Answer]) -> None:
    try:
        answer.set_result(read())
    except BaseException as error:  # noqa: BLE001 - it is raised where the answer is waited for
        answer.set_exception(error)


def read_until(deadline: Deadline, read: Callable[[], _Answer]) -> _Answer:
    """Read something, or stop waiting for it.

    Args:
        deadline: Until when.
        read: Is called in a thread.

    Raises:
        TimeoutError: It has taken longer.
    """
    with Reads(deadline, 1) as reads:
        return reads.wait(reads.ask(read))


def in_a_hurry(run: Run) -> Run:
    """Return the run as a page reads it.

    Args:
        run: As the work reads it. What a page has waited for in vain is no news to that.
    """
    storage = run.storage
    hurried = replace(
        storage,
        attempts=min(storage.attempts, _ATTEMPTS),
        patience_s=min(storage.patience_s, _PATIENCE_S),
        timeout_s=min(storage.timeout_s, _PATIENCE_S),
        pace=Pace(heard=storage.pace.heard),
    )
    return replace(run, storage=hurried)
