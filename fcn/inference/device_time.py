"""How long a device has computed, as opposed to how long somebody has waited for it."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_MS = 1e-3


class DeviceTime:
    """Sums up the seconds of work on a device.

    On a GPU: between events on its own stream around each piece of work, so that a device which
    waits for pictures does not count as busy. On a CPU: the CPU time of the thread that calls,
    which takes part in all that PyTorch computes.
    """

    def __init__(self, device: torch.device) -> None:
        """Start at 0.

        Args:
            device: Whose work is measured.
        """
        self._on_gpu = device.type == "cuda"
        self._seconds = 0.0
        self._pending: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Count the work that is launched in the block; nothing is waited for."""
        if not self._on_gpu:
            start = time.thread_time()
            yield
            self._seconds += time.thread_time() - start
            return
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]  # PyTorch's
        first.record()
        yield
        last.record()
        self._pending.append((first, last))

    def seconds(self) -> float:
        """Return the seconds of what is done; work that still runs is counted later."""
        while self._pending and self._pending[0][1].query():  # type: ignore[no-untyped-call]  # PyTorch's
            first, last = self._pending.popleft()
            self._seconds += _MS * first.elapsed_time(last)
        return self._seconds
