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
# The least that a replica may count, to stay apart from both.
_MIN_REPLICA_CPUS = 0.3


@dataclass(frozen=True)
class Replicas:
    """The pool of FCN replicas.

    Attributes:
        number: Of replicas.
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


def choose_replicas(
    settings: LabelSettings, nodes: Sequence[dict[str, Any]], num_shards: int
) -> Replicas:
    """Fit replicas to a cluster, as far as the settings leave it open.

    Args:
        settings: Of the job.
        nodes: As `ray.nodes()` lists them.
        num_shards: More replicas than shards are not started.

    Raises:
        SettingError: What is asked for leaves no CPU for reading and writing.
    """
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    cluster_gpus = sum(node.get("GPU", 0.0) for node in resources)
    num_gpus = settings.gpus_per_replica
    if num_gpus is None:
        num_gpus = 1.0 if cluster_gpus else 0.0
    hosts = [node for node in resources if node.get("GPU" if num_gpus else "CPU", 0)] or resources
    number = settings.num_replicas
    if number is None:
        number = math.floor(cluster_gpus / num_gpus) if num_gpus else len(hosts)
    number = max(1, min(number, num_shards))
    node_cpus = min(node.get("CPU", 0.0) for node in hosts)
    on_one_node = math.ceil(number / len(hosts))
    threads = settings.threads_per_replica or max(1, int(node_cpus) // on_one_node)
    num_cpus = settings.cpus_per_replica or _share_of_node(node_cpus, on_one_node)
    _leave_room(resources, number, num_cpus)
    placement = Placement(num_gpus > 0, threads, settings.batch_size)
    return Replicas(number, num_cpus, num_gpus, placement)


def _share_of_node(node_cpus: float, num_replicas: int) -> float:
    # One CPU is left for fetch and write: pools that take all of them wait for ever.
    return max(_MIN_REPLICA_CPUS, math.floor(100 * (node_cpus - 1) / num_replicas) / 100)


def _leave_room(resources: list[dict[str, float]], number: int, num_cpus: float) -> None:
    total = sum(node.get("CPU", 0.0) for node in resources)
    needed = number * num_cpus + FETCH_CPUS + WRITE_CPUS
    if needed > total:
        raise SettingError(
            f"{number} replica(s) of {num_cpus:g} CPUs and the reading and writing need "
            f"{needed:g} CPUs, the cluster has {total:g}; lower num_replicas or cpus_per_replica"
        )
