"""How many replicas a cluster gets, and what Ray sets aside for each step.

Ray never fuses two steps whose `num_cpus` differ, so a machine without a GPU runs the same
operators as a GPU cluster.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.cluster.packing import (
    Node,
    Resources,
    never_all,
    num_beside,
    num_of_gpu,
    num_that_fit,
    resources,
    spread,
)
from pipeline.errors import SettingError
from pipeline.labelling.segment import Placement
from pipeline.settings.label import LabelSettings

# Fetch and write wait for the network most of their time.
FETCH_CPUS = 0.25
WRITE_CPUS = 0.2
BESIDE_CPUS = FETCH_CPUS + WRITE_CPUS
# A replica's share by default: more is better spent on another replica. The least keeps it apart
# from fetch and write.
_MAX_REPLICA_CPUS = 4.0
_MIN_REPLICA_CPUS = 0.3


@dataclass(frozen=True)
class Replicas:
    """The pool of FCN replicas.

    Attributes:
        number: Of replicas that Ray is asked for at once; it works with those that it has.
        num_cpus: CPUs that Ray sets aside for each.
        num_gpus: GPUs for each, fractions allowed.
        placement: What each is told about where it runs.
        num_fetches: Shards that are read at a time, and as many that are written.
    """

    number: int
    num_cpus: float
    num_gpus: float
    placement: Placement
    num_fetches: int

    def __str__(self) -> str:
        """Say it for the log."""
        return (
            f"{self.number} replica(s), each with {self.num_gpus:g} GPU, {self.num_cpus:g} CPU, "
            f"{self.placement.threads} thread(s)"
        )

    @property
    def resources(self) -> dict[str, float]:
        """What Ray sets aside for one, by Ray's names."""
        return resources(self.num_cpus, self.num_gpus)


def choose_replicas(settings: LabelSettings, nodes: Sequence[Node], num_shards: int) -> Replicas:
    """Fit replicas to the nodes, as far as the settings leave it open.

    Args:
        settings: What the job was asked to do.
        nodes: Those that are up.
        num_shards: More replicas than shards are not started.

    Raises:
        SettingError: What is asked for does not fit this machine; a cluster may grow. Or the
            precision is one of GPUs, and the replicas have none.
    """
    alive = [node.resources for node in nodes]
    num_gpus = gpus_for_each(settings, nodes)
    if settings.precision == "tf32" and not num_gpus:
        raise SettingError(
            "precision=tf32 is an arithmetic of GPUs, and the replicas have none; give "
            "gpus_per_replica=1 where the cluster can get GPUs, or precision=fp32"
        )
    num_cpus = settings.cpus_per_replica or _default_cpus(settings, alive, num_gpus)
    if settings.ray_address is not None:
        num_cpus = never_all(num_cpus, num_gpus, alive, BESIDE_CPUS)
    capacity = room_for(nodes, num_cpus, num_gpus)
    if capacity < settings.min_replicas and settings.ray_address is None:
        raise SettingError(
            f"there is room for {capacity} replica(s) of {num_cpus:g} CPU and {num_gpus:g} GPU "
            f"beside reading and writing, {settings.min_replicas} are wanted; lower min_replicas, "
            "cpus_per_replica or gpus_per_replica"
        )
    number = _number(settings, capacity, num_shards)
    placement = _placement(settings, alive, number, num_cpus, num_gpus)
    num_fetches = fetches_for(nodes, num_cpus, num_gpus)
    return Replicas(number, num_cpus, num_gpus, placement, num_fetches)


def gpus_for_each(settings: LabelSettings, nodes: Sequence[Node]) -> float:
    """Return the GPUs of each replica: what is asked for, else one if the cluster has any.

    Args:
        settings: What the job was asked to do.
        nodes: Those that are up.
    """
    if settings.gpus_per_replica is not None:
        return settings.gpus_per_replica
    return 1.0 if any(node.num_gpus for node in nodes) else 0.0


def _placement(
    settings: LabelSettings,
    nodes: Sequence[Resources],
    number: int,
    num_cpus: float,
    num_gpus: float,
) -> Placement:
    """Share a node's cores and memory out to the replicas that it may get."""
    fits = [num_that_fit(node, num_cpus, num_gpus, BESIDE_CPUS) for node in nodes]
    fullest = spread(fits, number)
    hosts = [(node, min(fit, fullest)) for node, fit in zip(nodes, fits, strict=True) if fit]
    cores = min((int(node["CPU"]) // count for node, count in hosts), default=int(num_cpus))
    memory = min(
        (int(node["memory"]) // count for node, count in hosts if "memory" in node), default=0
    )
    return Placement(
        use_gpu=num_gpus > 0,
        threads=settings.threads_per_replica or max(1, cores),
        batch_size=settings.batch_size,
        gpu_share=num_gpus or 1.0,
        memory_bytes=memory or None,
        max_whole_pixels=settings.max_whole_pixels,
    )


def room_for(nodes: Sequence[Node], num_cpus: float, num_gpus: float) -> int:
    """Count the replicas that there is room for, beside reading and writing.

    Args:
        nodes: Those that are up.
        num_cpus: CPUs for each.
        num_gpus: GPUs for each.
    """
    return sum(num_that_fit(node.resources, num_cpus, num_gpus, BESIDE_CPUS) for node in nodes)


def fetches_for(nodes: Sequence[Node], num_cpus: float, num_gpus: float) -> int:
    """Count the fetches that there is room for: so many that a write fits beside each.

    A fetch keeps its CPUs while its shards wait for a replica. Where they had all CPUs, nothing
    would be written, and no replica would get on.

    Args:
        nodes: Those that are up.
        num_cpus: CPUs of each replica.
        num_gpus: GPUs of each replica.
    """
    beside = (num_beside(node.resources, num_cpus, num_gpus, BESIDE_CPUS) for node in nodes)
    return max(1, sum(beside))


def _number(settings: LabelSettings, capacity: int, num_shards: int) -> int:
    limit = max(1, min(settings.max_replicas or num_shards, num_shards))
    if settings.ray_address and settings.max_replicas:
        # What is asked for makes a cluster grow; Ray works with the replicas that it has.
        return limit
    return min(max(settings.min_replicas, capacity), limit)


def _default_cpus(settings: LabelSettings, nodes: Sequence[Resources], num_gpus: float) -> float:
    """Give each replica up to four CPUs of the largest node, and leave one for reading.

    The share is small enough for `min_replicas` to have room.
    """
    none: Resources = {}
    largest = max(nodes, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)), default=none)
    on_node = math.ceil(settings.min_replicas / max(1, len(nodes)))
    if num_gpus:
        on_node = max(1, num_of_gpu(largest, num_gpus))
    cpus = largest.get("CPU", 0.0)
    # On few cores one more would fit if a whole one were left.
    share = max((cpus - 1) / on_node, (cpus - BESIDE_CPUS) / (on_node + 1) + 0.01)
    return min(_MAX_REPLICA_CPUS, max(_MIN_REPLICA_CPUS, math.floor(100 * share) / 100))
