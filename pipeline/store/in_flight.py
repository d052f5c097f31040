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


def parts_of(streams: Iterable[Iterator[_Answer]], number: int) -> Iterator[_Answer]:
    """Take what streams give, several of them at a time.

    Each is asked for its next part in a thread, and for no other until that is taken: there are
    never more parts than streams under way.

    Args:
        streams: Are themselves taken one after the other, where this is iterated.
        number: Of them under way.

    Returns:
        Their parts: in order of each stream, and of several in turn; an error is raised in its
        place.
    """
    waiting: deque[tuple[Iterator[_Answer], Future[_Answer | None]]] = deque()
    coming = iter(streams)
    with ThreadPoolExecutor(number) as pool:
        while True:
            while len(waiting) < number and (stream := next(coming, None)) is not None:
                waiting.append((stream, pool.submit(next, stream, None)))
            if not waiting:
                return
            stream, future = waiting.popleft()
            if (part := future.result()) is not None:
                waiting.append((stream, pool.submit(next, stream, None)))
                yield part
