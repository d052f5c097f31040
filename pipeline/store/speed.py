"""How slow an answer or an upload may be: one that trickles is alive, and never ends."""

import time

from pipeline.store.bucket_errors import BodyBrokeError

# A body that comes slower than this over a whole window is asked for anew; so is an upload.
SLOWEST_BYTES_PER_S = 16 << 10
_WINDOW_S = 20.0


class Speed:
    """Watches how fast a body comes."""

    def __init__(self, timeout_s: float) -> None:
        """Begin with nothing.

        Args:
            timeout_s: As the attribute of `Storage`.
        """
        self._window_s = min(_WINDOW_S, timeout_s)
        self._since, self._before = time.monotonic(), 0

    def check(self, num_bytes: int) -> None:
        """Refuse a body that drips. Raises BodyBrokeError.

        Args:
            num_bytes: That have come so far.
        """
        passed = time.monotonic() - self._since
        if passed <= self._window_s:
            return
        come = num_bytes - self._before
        if come < SLOWEST_BYTES_PER_S * passed:
            raise BodyBrokeError(f"{come} bytes in {passed:.0f} s")
        self._since, self._before = time.monotonic(), num_bytes
