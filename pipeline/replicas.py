"""How many replicas a cluster gets, and what Ray sets aside for each step.

Ray never fuses two steps whose `num_cpus` differ, so a machine without a GPU runs the same
operators as a GPU cluster.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config import LabelSettings
from pipeline.errors import SettingError
from pipeline.segment import Placement

# Fetch and write wait for the network most of their time.
FETCH_CPUS = 0.25
WRITE_CPUS = 0.2
# A replica's share by default: more is better spent on another replica. The least keeps it apart
# from fetch and write.
_MAX_REPLICA_CPUS = 4.0
_MIN_REPLICA_CPUS = 0.3
_TOLERANCE = 0.05


@dataclass(frozen=True)
class Replicas:
    """The pool of FCN replicas.

    Attributes:
        number: Of replicas that Ray is asked for at once; it works with those that it has.
        num_cpus: CPUs that Ray sets aside for each.
        num_gpus: GPUs for each, fractions allowed.
        placement: What each is told about where it runs.
    """

    number: int
    num_cpus: float
    num_gpus: float
    placement: Placement

    def __str__(self) -> str:
        """Say it for the log."""
        return (
            f"{self.number} replica(s), each with {self.num_gpus:g} GPU, {self.num_cpus:g} CPU, "
            f"{self.placement.threads} thread(s)"
        )

    @property
    def resources(self) -> dict[str, float]:
        """What Ray sets aside for one, by Ray's names."""
        return {"CPU": self.num_cpus, **({"GPU": self.num_gpus} if self.num_gpus else {})}


def choose_replicas(
    settings: LabelSettings, nodes: Sequence[dict[str, Any]], num_shards: int
) -> Replicas:
    """Fit replicas to the nodes, as far as the settings leave it open.

    Args:
        settings: Of the job.
        nodes: As `ray.nodes()` lists them.
        num_shards: More replicas than shards are not started.

    Raises:
        SettingError: What is asked for does not fit this machine. A cluster may grow.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    num_gpus = settings.gpus_per_replica
    if num_gpus is None:
        num_gpus = 1.0 if any(node.get("GPU") for node in alive) else 0.0
    num_cpus = settings.cpus_per_replica or _default_cpus(settings, alive, num_gpus)
    room = [(node, _num_that_fit(node, num_cpus, num_gpus)) for node in alive]
    hosts = [(node, number) for node, number in room if number]
    capacity = sum(number for _, number in hosts)
    if capacity < settings.min_replicas and settings.ray_address is None:
        raise SettingError(
            f"there is room for {capacity} replica(s) of {num_cpus:g} CPU and {num_gpus:g} GPU "
            f"beside reading and writing, {settings.min_replicas} are wanted; lower min_replicas, "
            "cpus_per_replica or gpus_per_replica"
        )
    number = _number(settings, capacity, num_shards)
    if settings.ray_address is not None:
        num_cpus = _never_all(num_cpus, num_gpus, alive)
    # Of a node's cores and memory, what falls to each of the replicas that it may get.
    most_on_node = _spread([fit for _, fit in hosts], number)
    on_node = [(node, min(fit, most_on_node)) for node, fit in hosts]
    cores = min((int(node["CPU"]) // fit for node, fit in on_node), default=int(num_cpus))
    memory = min(
        (int(node["memory"]) // fit for node, fit in on_node if "memory" in node), default=0
    )
    placement = Placement(
        use_gpu=num_gpus > 0,
        threads=settings.threads_per_replica or max(1, cores),
        batch_size=settings.batch_size,
        memory_bytes=memory or None,
        max_whole_pixels=settings.max_whole_pixels,
    )
    return Replicas(number, num_cpus, num_gpus, placement)


def room_for(nodes: Sequence[dict[str, Any]], num_cpus: float, num_gpus: float) -> int:
    """Count the replicas that there is room for, beside reading and writing.

    Args:
        nodes: As `ray.nodes()` lists them.
        num_cpus: CPUs for each.
        num_gpus: GPUs for each.
    """
    alive = (node["Resources"] for node in nodes if node["Alive"])
    return sum(_num_that_fit(node, num_cpus, num_gpus) for node in alive)


def _spread(fits: list[int], number: int) -> int:
    """Say how many replicas the fullest node gets if they are spread evenly."""
    fullest = 1
    while fullest < max(fits, default=1) and sum(min(fit, fullest) for fit in fits) < number:
        fullest += 1
    return fullest


def _number(settings: LabelSettings, capacity: int, num_shards: int) -> int:
    limit = max(1, min(settings.max_replicas or num_shards, num_shards))
    if settings.ray_address and settings.max_replicas:
        # What is asked for makes a cluster grow; Ray works with the replicas that it has.
        return limit
    return min(max(settings.min_replicas, capacity), limit)


def _never_all(num_cpus: float, num_gpus: float, nodes: list[dict[str, float]]) -> float:
    """Enlarge a share until no number of replicas takes all CPUs of a node.

    Ray starts a replica again wherever its share is free: when a node has died, also on the CPUs
    that others leave for reading and writing. Each would wait for the other, for ever.
    """
    for node in nodes:
        cpus = node.get("CPU", 0.0)
        possible = math.floor(cpus / num_cpus)
        if num_gpus:
            possible = min(possible, math.floor(node.get("GPU", 0.0) / num_gpus))
        if possible > 1 and cpus - possible * num_cpus < FETCH_CPUS + WRITE_CPUS:
            larger = math.floor(100 * cpus / possible + 1) / 100
            return _never_all(larger, num_gpus, nodes)
    return num_cpus


def _default_cpus(settings: LabelSettings, nodes: list[dict[str, float]], num_gpus: float) -> float:
    """Give each replica up to four CPUs of the largest node, and leave one for reading.

    So many replicas that `min_replicas` have room.
    """
    largest = max(nodes, key=lambda node: (node.get("GPU", 0.0), node.get("CPU", 0.0)), default={})
    on_node = math.ceil(settings.min_replicas / max(1, len(nodes)))
    if num_gpus:
        on_node = max(1, math.floor(largest.get("GPU", 0.0) / num_gpus))
    share = math.floor(100 * (largest.get("CPU", 0.0) - 1) / on_node) / 100
    return min(_MAX_REPLICA_CPUS, max(_MIN_REPLICA_CPUS, share))


def _num_that_fit(node: dict[str, float], num_cpus: float, num_gpus: float) -> int:
    cpus = node.get("CPU", 0.0)
    # A share of less than a core is what several replicas on a node have agreed on: see above.
    left = 1.0 if num_cpus < 1 < cpus else FETCH_CPUS + WRITE_CPUS
    # A share may have grown by a hundredth: see _never_all.
    by_cpu = math.floor((cpus - left) / num_cpus + _TOLERANCE)
    return max(0, min(by_cpu, math.floor(node.get("GPU", 0.0) / num_gpus)) if num_gpus else by_cpu)
