"""Metrics of a labelling run, through Ray, for Prometheus (infra/monitoring).

They are counted on the driver, from the receipts of committed shards: what the counters say at
the end is what the manifest says of the shards of this command.
"""

import threading
import time

from ray.util.metrics import Counter, Gauge, Histogram

from pipeline.errors import ErrorCode
from pipeline.labelling.cost import STEPS, Work, WorkSum
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import ERROR, OK, Receipt

# How often gauges are set again.
_GAUGES_S = 2.0
# Seconds of one step of one shard.
_BOUNDARIES = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0]


class RunMetrics:
    """Counts receipts."""

    def __init__(self, run: Run, num_images: int, ended: threading.Event) -> None:
        """Make the metrics; Ray has to be there.

        Args:
            run: What is labelled.
            num_images: Of its images, that are left to do.
            ended: Is set when the run has ended, until when the gauges stand.
        """
        tags = {"run": run.run_id}
        self._images = _counter("images", "Images committed", tags, "status", "code")
        self._read = _counter("read_bytes", "Bytes of encoded images read", tags)
        self._written = _counter("written_bytes", "Bytes of masks written", tags)
        self._backoffs = _counter(
            "out_of_memory_backoffs", "Batches and tiles made smaller for want of memory", tags
        )
        self._retries = _counter("retries", "Requests to the store made again", tags, "kind")
        self._seconds = Histogram(
            "fcn_step_seconds", "Seconds of a step of a shard", _BOUNDARIES, ("step", "run")
        )
        self._seconds.set_default_tags(tags)
        self._busy = _gauge("replica_busy_share", "Share of the time that networks compute", tags)
        self._planned = _gauge("planned_images", "Images that this command has to do", tags)
        self._started = _gauge("run_started_timestamp_seconds", "When this command began", tags)
        self._num_images, self._started_at = num_images, time.time()
        self._sum, self._busy_share = WorkSum(), 0.0
        self._ended = ended
        threading.Thread(target=self._keep_gauges, name="metrics", daemon=True).start()

    def _keep_gauges(self) -> None:
        """Set the gauges again and again: Ray drops one that has not been set for seconds."""
        while True:
            self._planned.set(self._num_images)
            self._started.set(self._started_at)
            self._busy.set(self._busy_share)
            if self._ended.wait(_GAUGES_S):
                return

    def add(self, receipt: Receipt) -> None:
        """Count one committed shard."""
        work = Work(**receipt["work"])
        succeeded = receipt["num_images"] - receipt["num_failed"]
        _increase(self._images, succeeded, {"status": OK, "code": ""})
        for code, number in receipt["errors"].items():
            _increase(self._images, number, {"status": ERROR, "code": str(ErrorCode(code))})
        _increase(self._read, work.read_bytes)
        _increase(self._written, work.written_bytes)
        _increase(self._backoffs, work.backoffs)
        for kind, number in work.retries.items():
            _increase(self._retries, number, {"kind": kind})
        for step in STEPS:
            if step in work.seconds:
                self._seconds.observe(work.seconds[step], {"step": step})
        self._sum.add(work)
        self._busy_share = self._sum.totals().busy_share
        self._busy.set(self._busy_share)


def _counter(name: str, description: str, tags: dict[str, str], *more: str) -> Counter:
    counter = Counter(f"fcn_{name}", description, (*more, "run"))
    counter.set_default_tags(tags)
    return counter


def _gauge(name: str, description: str, tags: dict[str, str]) -> Gauge:
    gauge = Gauge(f"fcn_{name}", description, ("run",))
    gauge.set_default_tags(tags)
    return gauge


def _increase(counter: Counter, number: float, tags: dict[str, str] | None = None) -> None:
    # Ray refuses an increase of nothing.
    if number:
        counter.inc(number, tags or {})
