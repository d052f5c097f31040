"""What a person or a log sees while a run goes on."""

import logging
import sys
import threading
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

from pipeline.labelling.schema import Receipt

_log = logging.getLogger(__name__)


class Progress:
    """Counts committed images; a bar in a terminal, else a log line at intervals.

    The line comes also when nothing is committed, so that a log shows a run that waits.
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
        self._start = time.monotonic()
        self._bar = (
            tqdm(total=num_images, initial=num_done, unit=" images", dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._report, name="progress", daemon=True)

    def __enter__(self) -> Self:
        """Show that the work begins."""
        if self._bar is None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the bar or the lines."""
        self._ended.set()
        if self._bar is not None:
            self._bar.close()
        else:
            self._thread.join()
            _log.info(self._line())

    def add(self, receipt: Receipt) -> None:
        """Count one committed shard."""
        self._num_done += receipt["num_images"]
        self._num_failed += receipt["num_failed"]
        if self._bar is not None:
            self._bar.set_postfix(failed=self._num_failed, refresh=False)
            self._bar.update(receipt["num_images"])

    @property
    def images_per_s(self) -> float:
        """Images committed per second since the start, loading of the network included."""
        return (self._num_done - self._num_before) / max(time.monotonic() - self._start, 1e-9)

    def _report(self) -> None:
        while not self._ended.wait(self._interval_s):
            _log.info(self._line())

    def _line(self) -> str:
        rate = self.images_per_s
        left = self._num_images - self._num_done
        eta = f"{left / rate:.0f} s left" if rate and left else "nothing left"
        if left and not rate:
            eta = "nothing committed yet, waiting for the first shard"
        return (
            f"{self._num_done} of {self._num_images} images, {rate:.1f} images/s, {eta}, "
            f"{self._num_failed} failed"
        )
