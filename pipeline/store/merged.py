"""Listings that are read at the same time, as one."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

_Item = TypeVar("_Item")

# How often who waits for room looks whether it is still wanted, in seconds.
_LOOK_S = 0.2


class _Merge(Generic[_Item]):
    """A place where threads hand in what they read, and one takes it."""

    def __init__(self, room: int) -> None:
        self._items: queue.Queue[tuple[_Item | None, BaseException | None]] = queue.Queue(room)
        self._left = threading.Event()

    def leave(self) -> None:
        """Nobody takes anything any more."""
        self._left.set()

    def read(self, listing: Callable[[], Iterator[_Item]]) -> None:
        """Hand in all items, and the end or what was raised."""
        try:
            for item in listing():
                if not self._put(item, None):
                    return
        except BaseException as error:  # noqa: BLE001 - it is raised where the items are taken
            self._put(None, error)
        else:
            self._put(None, None)

    def _put(self, item: _Item | None, error: BaseException | None) -> bool:
        while not self._left.is_set():
            try:
                self._items.put((item, error), timeout=_LOOK_S)
            except queue.Full:
                continue
            return True
        return False

    def take(self, number: int) -> Iterator[_Item]:
        """Take the items of so many listings as they come."""
        while number:
            item, error = self._items.get()
            if error is not None:
                raise error
            if item is None:
                number -= 1
            else:
                yield item


def merged(listings: Iterable[Callable[[], Iterator[_Item]]], at_a_time: int) -> Iterator[_Item]:
    """Read listings at the same time, in memory that does not grow.

    Args:
        listings: Each begins one; its items are never None.
        at_a_time: Listings that are read together.

    Yields:
        The items of all, in no order; the first error is raised in their place.
    """
    merge: _Merge[_Item] = _Merge(2 * at_a_time)
    pool = ThreadPoolExecutor(at_a_time, thread_name_prefix="listing")
    try:
        reading = [pool.submit(merge.read, listing) for listing in listings]
        yield from merge.take(len(reading))
    finally:
        merge.leave()
        # A request under way ends by itself: nobody waits for it.
        pool.shutdown(wait=False, cancel_futures=True)
