"""Work: what a shard has cost, on its way through the steps and into its commit record.

It stands in the metadata of the commit record, so that the report of a run is a sum over its
commits like everything else, whoever made them and in however many attempts.
"""

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

STEPS = ("fetch", "decode", "network", "encode", "write")
_KEY = b"work"


class Work(BaseModel):
    """What one shard has cost.

    Attributes:
        seconds: By step, as the clock saw it; the steps of several shards overlap.
        read_bytes: Of encoded images.
        written_bytes: Of masks.
        retries: Requests to the store that were made again, by kind.
        backoffs: Batches and tiles that were made smaller because memory was short.
        replica: Host and process that held the network.
        started_at: When the replica began with the shard, in seconds since the epoch.
        ended_at: When it had done it.
    """

    model_config = ConfigDict(extra="ignore")

    seconds: dict[str, float] = {}
    read_bytes: int = 0
    written_bytes: int = 0
    retries: dict[str, int] = {}
    backoffs: int = 0
    replica: str = ""
    started_at: float = 0.0
    ended_at: float = 0.0

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Count the time of a block to a step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spend(step, time.perf_counter() - start)

    def spend(self, step: str, seconds: float) -> None:
        """Count time to a step."""
        self.seconds[step] = self.seconds.get(step, 0.0) + seconds

    def retried(self, retries: Mapping[str, int]) -> None:
        """Count requests that were made again."""
        self.retries = dict(Counter(self.retries) + Counter(retries))

    def metadata(self) -> dict[bytes, bytes]:
        """Give the entry of a commit record's metadata."""
        return {_KEY: self.model_dump_json().encode()}

    @staticmethod
    def of_metadata(metadata: Mapping[bytes, bytes] | None) -> "Work":
        """Read it back; nothing, from records of earlier versions."""
        return Work(**json.loads((metadata or {}).get(_KEY, b"{}")))


def this_process() -> str:
    """Name this host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


class WorkTotals(BaseModel):
    """What a run has cost: sums over its commit records.

    Attributes:
        seconds: By step.
        read_bytes: Of encoded images.
        written_bytes: Of masks.
        retries: By kind.
        backoffs: Batches and tiles made smaller.
        num_replicas: Processes that held a network, of all attempts.
        replica_seconds: From the first shard of each to its last.
        node_seconds: The same of the hosts.
        busy_share: Of the replicas' time that their networks computed, 0 to 1.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    seconds: dict[str, float]
    read_bytes: int
    written_bytes: int
    retries: dict[str, int]
    backoffs: int
    num_replicas: int
    replica_seconds: float
    node_seconds: float
    busy_share: float


@dataclass
class _Span:
    first: float
    last: float

    @property
    def seconds(self) -> float:
        return self.last - self.first


@dataclass
class WorkSum:
    """Sums up."""

    seconds: dict[str, float] = field(default_factory=dict)
    retries: Counter[str] = field(default_factory=Counter)
    read_bytes: int = 0
    written_bytes: int = 0
    backoffs: int = 0
    _spans: dict[str, _Span] = field(default_factory=dict)

    def add(self, work: Work) -> None:
        """Add what a shard has cost."""
        for step, seconds in work.seconds.items():
            self.seconds[step] = self.seconds.get(step, 0.0) + seconds
        self.retries.update(work.retries)
        self.read_bytes += work.read_bytes
        self.written_bytes += work.written_bytes
        self.backoffs += work.backoffs
        if work.replica:
            span = self._spans.setdefault(work.replica, _Span(work.started_at, work.ended_at))
            span.first = min(span.first, work.started_at)
            span.last = max(span.last, work.ended_at)

    def totals(self) -> WorkTotals:
        """Give the sums."""
        replica_seconds = sum(span.seconds for span in self._spans.values())
        return WorkTotals(
            seconds={step: round(self.seconds.get(step, 0.0), 3) for step in STEPS},
            read_bytes=self.read_bytes,
            written_bytes=self.written_bytes,
            retries=dict(sorted(self.retries.items())),
            backoffs=self.backoffs,
            num_replicas=len(self._spans),
            replica_seconds=round(replica_seconds, 3),
            node_seconds=round(self._node_seconds(), 3),
            busy_share=round(
                min(1.0, self.seconds.get("network", 0.0) / max(replica_seconds, 1e-9)), 4
            ),
        )

    def _node_seconds(self) -> float:
        """Count the time in which hosts had a replica at work: pauses of a run cost nothing."""
        by_host: dict[str, list[_Span]] = {}
        for replica, span in self._spans.items():
            by_host.setdefault(replica.rpartition(":")[0], []).append(span)
        return sum(_covered(spans) for spans in by_host.values())


def _covered(spans: list[_Span]) -> float:
    total, until = 0.0, float("-inf")
    for span in sorted(spans, key=lambda one: one.first):
        total += max(0.0, span.last - max(until, span.first))
        until = max(until, span.last)
    return total
