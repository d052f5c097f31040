"""What a person or a log sees while a run goes on."""

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import NoReturn, Self

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from pipeline.labelling.schema import Receipt
from pipeline.labelling.within_shards import NUM_IMAGES

_log = logging.getLogger(__name__)

_LOOK_S = 0.5
# For the last look.
_WAIT_S = 5.0


def has_terminal() -> bool:
    """Return whether a person sees a bar."""
    return sys.stderr.isatty()


class Progress:
    """Counts committed images; a bar in a terminal, else a log line at intervals.

    The line comes also when nothing is committed, so that a log shows a run that waits. The bar
    moves within shards, too, if there is somebody to `follow`.
    """

    def __init__(self, num_images: int, num_done: int, interval_s: float) -> None:
        """Start counting.

        Args:
            num_images: Planned images of the run.
            num_done: Of these, committed before.
            interval_s: Seconds between two log lines.
        """
        self._num_images = num_images
        self._interval_s = interval_s
        self._num_before = num_done
        self._num_done = num_done
        self._num_failed = 0
        self._num_labelled = 0
        self._start = time.monotonic()
        self._end: float | None = None
        self._bar = (
            tqdm(total=num_images, initial=num_done, unit=" images", dynamic_ncols=True)
            if has_terminal()
            else None
        )
        self._messages: Callable[[], Iterable[Mapping[str, int]]] = tuple
        self._opened = ExitStack()
        self._ended = threading.Event()
        # Ray may be slow to answer.
        self._thread = threading.Thread(target=self._report, name="progress", daemon=True)

    def follow(self, messages: Callable[[], Iterable[Mapping[str, int]]]) -> None:
        """Let the bar move with what replicas tell of images that are not committed yet.

        Args:
            messages: Gives those that have arrived (`within_shards`).
        """
        self._messages = messages

    def __enter__(self) -> Self:
        """Show that the work begins."""
        if self._bar is not None:
            # Lines of the log stand above the bar.
            self._opened.enter_context(logging_redirect_tqdm())
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the bar or the lines."""
        # Publishing and the report come after it, and are no part of the speed that is said.
        self._end = time.monotonic()
        self._ended.set()
        self._thread.join(_WAIT_S)
        if self._bar is not None:
            self._bar.n = self._num_done
            self._bar.close()
        else:
            _log.info(self._line())
        self._opened.close()

    def add(self, receipt: Receipt) -> None:
        """Count one committed shard."""
        self._num_done += receipt["num_images"]
        self._num_failed += receipt["num_failed"]
        if self._bar is not None:
            self._bar.set_postfix(failed=self._num_failed, refresh=False)
            self._move(self._bar)

    @property
    def images_per_s(self) -> float:
        """Images committed per second since the start, loading of the network included."""
        end = time.monotonic() if self._end is None else self._end
        return (self._num_done - self._num_before) / max(end - self._start, 1e-9)

    def _report(self) -> None:
        if self._bar is not None:
            self._follow(self._bar)
            return
        while not self._ended.wait(self._interval_s):
            _log.info(self._line())

    def _follow(self, bar: "tqdm[NoReturn]") -> None:
        while not self._ended.wait(_LOOK_S):
            try:
                self._num_labelled += sum(one[NUM_IMAGES] for one in self._messages())
            except Exception:  # noqa: BLE001 - of Ray, if it is gone: what it ends says so
                return
            self._move(bar)

    def _move(self, bar: "tqdm[NoReturn]") -> None:
        """Show what is committed, or labelled; the shard of a dead replica is labelled twice."""
        labelled = min(self._num_before + self._num_labelled, self._num_images)
        bar.update(max(self._num_done, labelled) - bar.n)

    def _line(self) -> str:
        rate = self.images_per_s
        left = self._num_images - self._num_done
        eta = f"{left / rate:.0f} s left" if rate and left else "nothing left"
        if left and not rate:
            eta = "nothing committed yet, waiting for the first shard"
        return (
            f"{self._num_done} of {self._num_images} images, {rate:.1f} images/s (loading of the "
            f"network included), {eta}, {self._num_failed} failed"
        )
