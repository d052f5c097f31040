"""How often a request is tried, with which pauses between, and how many there were."""

import threading
from collections import Counter
from collections.abc import Callable

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

_COUNTING = threading.Lock()


class Tally(Counter[str]):
    """A count by kind that many threads may add to; travels to workers."""

    def count(self, kind: str, number: int = 1) -> None:
        """Add to one kind."""
        with _COUNTING:
            self[kind] += number


def retrying(
    attempts: int, may_pass: Callable[[BaseException], bool], note: Callable[[], None]
) -> Retrying:
    """Build the loop that tries a request again, with growing pauses.

    Args:
        attempts: How often it is tried at most.
        may_pass: Whether an error may pass by itself; every other one ends the loop.
        note: Called before each pause.
    """
    return Retrying(
        before_sleep=lambda _: note(),
        retry=retry_if_exception(may_pass),
        stop=stop_after_attempt(attempts),
        wait=wait_random_exponential(multiplier=0.2, max=20),
        reraise=True,
    )
