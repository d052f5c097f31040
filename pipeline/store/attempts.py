"""How often a request is tried, with which pauses between, and how many there were."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

_COUNTING = threading.Lock()
# A store that has never answered may be a wrong setting, which nobody shall wait long for.
_UNHEARD_ATTEMPTS = 5
# Once one request has waited in vain for all that it may, the others need not wait as long.
_SPENT_ATTEMPTS = 3


class Tally(Counter[str]):
    """A count by kind that many threads may add to; travels to workers."""

    def count(self, kind: str, number: int = 1) -> None:
        """Add to one kind."""
        with _COUNTING:
            self[kind] += number


class Pace:
    """What the threads of a process know of a store together; travels to workers.

    A thread that is asked to slow down makes all of them pause, and what one has waited for in
    vain is not waited for by all the others too.

    Attributes:
        heard: Whether the store has answered anything yet, to whichever process.
        spent: Whether the last request that needed patience had none left.
    """

    def __init__(self, *, heard: bool = False) -> None:
        """Begin with what another process knows.

        Args:
            heard: As the attribute.
        """
        self.heard = heard
        self.spent = False
        self._pause_until = 0.0

    def __reduce__(self) -> tuple[Callable[[bool], "Pace"], tuple[bool]]:
        """Travel without the clock of this machine."""
        return (_pace, (self.heard,))

    def answered(self) -> None:
        """Note that a request has got what it asked for."""
        self.heard, self.spent = True, False

    def slow_down(self, seconds: float) -> None:
        """Make all threads pause."""
        self._pause_until = max(self._pause_until, time.monotonic() + seconds)

    def wait(self) -> None:
        """Sit out a pause, a little longer than the others, so that not all begin at once."""
        left = self._pause_until - time.monotonic()
        if left > 0:
            time.sleep(left * random.uniform(1.0, 1.5))  # noqa: S311 - no secret hangs on it


def _pace(heard: bool) -> Pace:  # noqa: FBT001 - pickle gives it by position
    return Pace(heard=heard)


@dataclass(frozen=True)
class Patience:
    """How long a request is tried.

    Attributes:
        attempts: How often at most.
        seconds: For how long, pauses included; whichever ends first.
    """

    attempts: int
    seconds: float

    def is_over(self, pace: Pace, state: RetryCallState) -> bool:
        """Return whether a request that has failed is not made again.

        Args:
            pace: The pace of the store.
            state: The state of the request, with the pause that is to come.
        """
        attempts = self.attempts
        for least, applies in ((_UNHEARD_ATTEMPTS, not pace.heard), (_SPENT_ATTEMPTS, pace.spent)):
            attempts = min(attempts, least) if applies else attempts
        if state.attempt_number >= attempts:
            return True
        is_over = (state.seconds_since_start or 0.0) + state.upcoming_sleep > self.seconds
        pace.spent |= is_over
        return is_over


@dataclass(frozen=True)
class Asking:
    """How a store is asked, and what of it is counted.

    Attributes:
        patience: How long a request is tried.
        pace: The pace of the store, shared by all who ask it.
        retries: Requests that were made again, by kind.
        requests: Requests that were made, by kind.
    """

    patience: Patience
    pace: Pace
    retries: Tally
    requests: Tally


def retrying(
    patience: Patience,
    pace: Pace,
    may_pass: Callable[[BaseException], bool],
    note: Callable[[BaseException], None],
) -> Retrying:
    """Build the loop that tries a request again, with growing pauses.

    Args:
        patience: How long it is tried.
        pace: The pace of the store, shared by all who ask it.
        may_pass: Whether an error may pass by itself; every other one ends the loop.
        note: Called with the error before each pause.
    """

    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        assert error is not None, "only errors are retried"
        note(error)

    return Retrying(
        before=lambda _: pace.wait(),
        before_sleep=before_sleep,
        retry=retry_if_exception(may_pass),
        stop=lambda state: patience.is_over(pace, state),
        wait=wait_random_exponential(multiplier=0.4, max=20),
        reraise=True,
    )
