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

from pydantic import BaseModel, ConfigDict, Field, RootModel

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


class _Spans(RootModel[dict[str, tuple[float, float]]]):
    """From when to when each of some things was seen."""

    root: dict[str, tuple[float, float]] = {}

    def see(self, key: str, first: float, last: float) -> None:
        known_first, known_last = self.root.get(key, (first, last))
        self.root[key] = (min(first, known_first), max(last, known_last))

    def add(self, others: "_Spans") -> None:
        for key, (first, last) in others.root.items():
            self.see(key, first, last)

    @property
    def seconds(self) -> float:
        return sum(last - first for first, last in self.root.values())


class WorkSum(BaseModel):
    """Sums up; sums of sums add up, too, and travel as JSON.

    Attributes:
        seconds: By step.
        retries: By kind.
        read_bytes: Of encoded images.
        written_bytes: Of masks.
        backoffs: Batches and tiles made smaller.
        busy_seconds: That devices have computed.
        lost_replicas: With the attempt in which they were lost.
        replicas: When each was seen, by attempt.
        hosts: The same of hosts.
        attempts: The same of attempts.
        timeline: Images by time.
    """

    seconds: dict[str, float] = {}
    retries: Counter[str] = Field(default_factory=Counter)
    read_bytes: int = 0
    written_bytes: int = 0
    backoffs: int = 0
    busy_seconds: float = 0.0
    lost_replicas: set[str] = set()
    replicas: _Spans = Field(default_factory=_Spans)
    hosts: _Spans = Field(default_factory=_Spans)
    attempts: _Spans = Field(default_factory=_Spans)
    timeline: TimelineSum = Field(default_factory=TimelineSum)

    def add(self, work: Work, num_images: int = 0) -> None:
        """Add what a shard has cost.

        Args:
            work: The work of the shard.
            num_images: Number of images of the shard, for the timeline.
        """
        self.timeline.add(work.hosts.values(), num_images)
        waited = work.seconds.get("network", 0.0)
        busy = waited if work.device_seconds is None else work.device_seconds
        self._count(work, busy, {f"{work.attempt} {one}" for one in work.lost_replicas})
        for host, (first, last) in work.hosts.items():
            # A run that was cut off at night and goes on the next is not billed for the day.
            self.hosts.see(f"{work.attempt} {host}", first, last)
            self.attempts.see(str(work.attempt), first, last)
        if work.replica:
            # Containers give the same number to another process.
            self.replicas.see(f"{work.attempt} {work.replica}", work.started_at, work.ended_at)

    def add_sum(self, other: "WorkSum") -> None:
        """Add what other shards have cost."""
        self._count(other, other.busy_seconds, other.lost_replicas)
        self.hosts.add(other.hosts)
        self.attempts.add(other.attempts)
        self.replicas.add(other.replicas)
        self.timeline.add_sum(other.timeline)

    def _count(self, other: "Work | WorkSum", busy: float, lost: set[str]) -> None:
        for step, seconds in other.seconds.items():
            self.seconds[step] = self.seconds.get(step, 0.0) + seconds
        self.retries.update(other.retries)
        self.read_bytes += other.read_bytes
        self.written_bytes += other.written_bytes
        self.backoffs += other.backoffs
        self.busy_seconds += busy
        self.lost_replicas |= lost

    def totals(self) -> WorkTotals:
        """Return the sums."""
        replica_seconds = self.replicas.seconds
        busy_share = self.busy_seconds / max(replica_seconds, 1e-9)
        return WorkTotals(
            seconds={step: round(self.seconds.get(step, 0.0), 3) for step in STEPS},
            read_bytes=self.read_bytes,
            written_bytes=self.written_bytes,
            retries=dict(sorted(self.retries.items())),
            backoffs=self.backoffs,
            num_replicas=len(self.replicas.root),
            num_lost_replicas=len(self.lost_replicas),
            replica_seconds=round(replica_seconds, 3),
            node_seconds=round(self.hosts.seconds, 3),
            busy_share=round(min(1.0, busy_share), 4),
            work_seconds=round(self.attempts.seconds, 3),
        )
