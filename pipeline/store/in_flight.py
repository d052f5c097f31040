"""Requests in flight: some are under way at any time, and their answers come in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")


def answers_of(
    ask: Callable[[_Request], _Answer], requests: Iterable[_Request], number: int
) -> Iterator[_Answer]:
    """Ask for one thing after the other, so many at a time.

    In contrast to `Executor.map`, no more answers than that are held, however slowly they are
    taken; and no answer waits for a whole batch of others.

    Args:
        ask: Is called in threads.
        requests: What it is called with.
        number: Under way, or answered and not yet taken.

    Returns:
        The answers, in order of the requests; an error is raised in its place.
    """
    waiting: deque[Future[_Answer]] = deque()
    with ThreadPoolExecutor(number) as pool:
        for request in requests:
            waiting.append(pool.submit(ask, request))
            if len(waiting) == number:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
