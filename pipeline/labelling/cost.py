"""Work: what a shard has cost, on its way through the steps and into its commit record.

It stands in the metadata of the commit record, so that the report of a run is a sum over its
commits like everything else, whoever made them and in however many attempts.
"""

import json
import os
import socket
import time
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from pipeline.labelling.timeline import TimelineSum

STEPS = ("fetch", "decode", "network", "encode", "write")
_KEY = b"work"


class Work(BaseModel):
    """What one shard has cost.

    Attributes:
        attempt: Which command did it: the number of its lock.
        seconds: By step, as the clock saw it; the steps of several shards overlap.
        hosts: When each host began with the shard and when it was done, in seconds since the
            epoch.
        replica: Host and process that held the network.
        started_at: When the replica began with the shard, in seconds since the epoch.
        ended_at: When it had done it.
        read_bytes: Of encoded images.
        written_bytes: Of masks.
        retries: Requests to the store that were made again, by kind.
        backoffs: Batches and tiles that were made smaller because memory was short.
        device_seconds: That the device has computed, which `network` may have waited for; None in
            records of earlier versions.
        lost_replicas: Host and process of those that died over the shard in the same command.
    """

    model_config = ConfigDict(extra="ignore")

    attempt: int = 0
    seconds: dict[str, float] = {}
    hosts: dict[str, tuple[float, float]] = {}
    replica: str = ""
    started_at: float = 0.0
    ended_at: float = 0.0
    read_bytes: int = 0
    written_bytes: int = 0
    retries: dict[str, int] = {}
    backoffs: int = 0
    device_seconds: float | None = None
    lost_replicas: list[str] = []

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Count the time of a block to a step, and to this host."""
        start, epoch = time.perf_counter(), time.time()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            self.seconds[step] = self.seconds.get(step, 0.0) + seconds
            host = socket.gethostname()
            first, last = self.hosts.get(host, (epoch, epoch))
            self.hosts[host] = (min(first, epoch), max(last, epoch + seconds))

    @contextmanager
    def in_replica(self) -> Iterator[None]:
        """Note which process has the shard, and from when to when."""
        self.replica, self.started_at = f"{socket.gethostname()}:{os.getpid()}", time.time()
        try:
            yield
        finally:
            self.ended_at = time.time()

    def retried(self, retries: Mapping[str, int]) -> None:
        """Count requests that were made again."""
        self.retries = dict(Counter(self.retries) + Counter(retries))

    def metadata(self) -> dict[bytes, bytes]:
        """Return the entry of a commit record's metadata."""
        return {_KEY: self.model_dump_json().encode()}

    @staticmethod
    def of_metadata(metadata: Mapping[bytes, bytes] | None) -> "Work":
        """Read it back; nothing, from records of earlier versions."""
        return Work(**json.loads((metadata or {}).get(_KEY, b"{}")))


class WorkTotals(BaseModel):
    """What a run has cost: sums over its commit records.

    Attributes:
        seconds: By step.
        read_bytes: Of encoded images.
        written_bytes: Of masks.
        retries: By kind.
        backoffs: Batches and tiles made smaller.
        num_replicas: Processes that held a network, of all attempts.
        num_lost_replicas: Of these and others, processes that died over a shard.
        replica_seconds: From the first shard of each to its last.
        node_seconds: In each attempt, from the first step of each host to its last.
        busy_share: Of the replicas' time that their devices computed masks, 0 to 1.
        work_seconds: Of the attempts, each from its first step to its last; pauses are none.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    seconds: dict[str, float]
    read_bytes: int
    written_bytes: int
    retries: dict[str, int]
    backoffs: int
    num_replicas: int
    # Manifests of earlier versions have none.
    num_lost_replicas: int = 0
    replica_seconds: float
    node_seconds: float
    busy_share: float
    work_seconds: float


class _Spans(dict[Hashable, tuple[float, float]]):
    """From when to when each of some things was seen."""

    def see(self, key: Hashable, first: float, last: float) -> None:
        known_first, known_last = self.get(key, (first, last))
        self[key] = (min(first, known_first), max(last, known_last))

    @property
    def seconds(self) -> float:
        return sum(last - first for first, last in self.values())


@dataclass
class WorkSum:
    """Sums up."""

    seconds: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    read_bytes: int = 0
    written_bytes: int = 0
    backoffs: int = 0
    timeline: TimelineSum = field(default_factory=TimelineSum)
    _busy_seconds: float = 0.0
    _lost_replicas: set[tuple[str, int]] = field(default_factory=set)
    _replicas: _Spans = field(default_factory=_Spans)
    _hosts: _Spans = field(default_factory=_Spans)
    _attempts: _Spans = field(default_factory=_Spans)

    def add(self, work: Work, num_images: int = 0) -> None:
        """Add what a shard has cost.

        Args:
            work: Of the shard.
            num_images: Of the shard, for the timeline.
        """
        self.timeline.add(work.hosts.values(), num_images)
        self.seconds.update(work.seconds)
        self.retries.update(work.retries)
        self.read_bytes += work.read_bytes
        self.written_bytes += work.written_bytes
        self.backoffs += work.backoffs
        waited = work.seconds.get("network", 0.0)
        self._busy_seconds += waited if work.device_seconds is None else work.device_seconds
        self._lost_replicas.update((replica, work.attempt) for replica in work.lost_replicas)
        for host, (first, last) in work.hosts.items():
            # A run that was cut off at night and goes on the next is not billed for the day.
            self._hosts.see((host, work.attempt), first, last)
            self._attempts.see(work.attempt, first, last)
        if work.replica:
            # Containers give the same number to another process.
            self._replicas.see((work.replica, work.attempt), work.started_at, work.ended_at)

    def totals(self) -> WorkTotals:
        """Return the sums."""
        replica_seconds = self._replicas.seconds
        busy_share = self._busy_seconds / max(replica_seconds, 1e-9)
        return WorkTotals(
            seconds={step: round(self.seconds[step], 3) for step in STEPS},
            read_bytes=self.read_bytes,
            written_bytes=self.written_bytes,
            retries=dict(sorted(self.retries.items())),
            backoffs=self.backoffs,
            num_replicas=len(self._replicas),
            num_lost_replicas=len(self._lost_replicas),
            replica_seconds=round(replica_seconds, 3),
            node_seconds=round(self._hosts.seconds, 3),
            busy_share=round(min(1.0, busy_share), 4),
            work_seconds=round(self._attempts.seconds, 3),
        )
