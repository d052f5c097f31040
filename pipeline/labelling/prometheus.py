"""Metrics of a labelling run, through Ray, for Prometheus (infra/monitoring).

They are counted on the driver, from the receipts of committed shards: what the counters say at
the end is what the manifest says of the shards of this command.
"""

import threading
import time
from types import TracebackType
from typing import Self

from pipeline.cluster.instruments import GAUGE_INTERVAL_S, Counter, Gauge, Histogram
from pipeline.errors import ErrorCode
from pipeline.labelling.cost import STEPS, Work, WorkSum
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import ERROR, OK, Receipt

# Seconds of one step of one shard.
_BOUNDARIES = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]


class RunMetrics:
    """Counts receipts; its gauges stand inside a `with` block."""

    def __init__(self, run: Run, num_images: int) -> None:
        """Make the metrics; Ray has to be there.

        Args:
            run: What is labelled.
            num_images: Of its images, that are left to do.
        """
        tags = {"run": run.run_id}
        self._images = Counter("images", "Images committed", tags, "status", "code")
        self._read = Counter("read_bytes", "Bytes of encoded images read", tags)
        self._written = Counter("written_bytes", "Bytes of masks written", tags)
        self._backoffs = Counter(
            "out_of_memory_backoffs", "Batches and tiles made smaller for want of memory", tags
        )
        self._retries = Counter("retries", "Requests to the store made again", tags, "kind")
        self._seconds = Histogram(
            "step_seconds", "Seconds of a step of a shard", tags, _BOUNDARIES, "step"
        )
        self._busy = Gauge("replica_busy_share", "Share of the time that networks compute", tags)
        self._planned = Gauge("planned_images", "Images that this command has to do", tags)
        self._started = Gauge("run_started_timestamp_seconds", "When this command began", tags)
        self._num_images, self._started_at = num_images, time.time()
        self._sum, self._busy_share = WorkSum(), 0.0
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        """Show the gauges, until the block ends."""
        threading.Thread(target=self._keep_gauges, name="metrics", daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let go of the gauges."""
        self._ended.set()

    def _keep_gauges(self) -> None:
        """Set the gauges again and again: one that has not been set for seconds is dropped."""
        while True:
            self._planned.set(self._num_images)
            self._started.set(self._started_at)
            self._busy.set(self._busy_share)
            if self._ended.wait(GAUGE_INTERVAL_S):
                return

    def add(self, receipt: Receipt) -> None:
        """Count one committed shard."""
        work = Work(**receipt["work"])
        succeeded = receipt["num_images"] - receipt["num_failed"]
        self._images.increase(succeeded, {"status": OK, "code": ""})
        for code, number in receipt["errors"].items():
            self._images.increase(number, {"status": ERROR, "code": str(ErrorCode(code))})
        self._read.increase(work.read_bytes)
        self._written.increase(work.written_bytes)
        self._backoffs.increase(work.backoffs)
        for kind, number in work.retries.items():
            self._retries.increase(number, {"kind": kind})
        for step in STEPS:
            if step in work.seconds:
                self._seconds.observe(work.seconds[step], {"step": step})
        self._sum.add(work)
        self._busy_share = self._sum.totals().busy_share
        self._busy.set(self._busy_share)
