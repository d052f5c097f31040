"""Packing: how many actors of a size a node holds beside the tasks that work for them.

Sizes are in Ray's resources.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Resources = Mapping[str, float]

_GPU_KIND = "accelerator_type:"


@dataclass(frozen=True)
class Node:
    """A node of the cluster that is up.

    Attributes:
        resources: What it has in all, by Ray's names.
        node_id: Ray's name of it.
        name: By which an operator finds it.
    """

    resources: Resources = field(default_factory=dict)
    node_id: str = ""
    name: str = ""

    @property
    def num_cpus(self) -> float:
        """CPUs that Ray may give away there."""
        return self.resources.get("CPU", 0.0)

    @property
    def num_gpus(self) -> float:
        """GPUs that Ray knows there."""
        return self.resources.get("GPU", 0.0)

    @property
    def gpu_kinds(self) -> list[str]:
        """Ray's names of its GPUs, such as `H100`; Ray counts each kind as a resource."""
        kinds = [name for name in self.resources if name.startswith(_GPU_KIND)]
        return [kind.removeprefix(_GPU_KIND) for kind in kinds]

    @property
    def object_store_bytes(self) -> int:
        """Size of Ray's object store there."""
        return int(self.resources.get("object_store_memory", 0))


# Shares are given in hundredths; sums of them are not exact.
_EPSILON = 1e-6


def num_that_fit(node: Resources, num_cpus: float, num_gpus: float, beside: float) -> int:
    """Count the actors that a node holds.

    Args:
        node: Its resources.
        num_cpus: CPUs of each.
        num_gpus: GPUs of each; Ray gives fractions of one GPU, or whole GPUs.
        beside: CPUs that are left to tasks.
    """
    by_cpu = math.floor((node.get("CPU", 0.0) - beside + _EPSILON) / num_cpus)
    return max(0, min(by_cpu, num_of_gpu(node, num_gpus)) if num_gpus else by_cpu)


def num_beside(node: Resources, num_cpus: float, num_gpus: float, beside: float) -> int:
    """Count how often the CPUs for tasks are there beside the actors that a node holds.

    Args:
        node: Its resources.
        num_cpus: CPUs of each actor.
        num_gpus: GPUs of each actor.
        beside: CPUs of tasks that work together.
    """
    taken = num_cpus * num_that_fit(node, num_cpus, num_gpus, beside)
    return max(0, math.floor((node.get("CPU", 0.0) - taken + _EPSILON) / beside))


def resources(num_cpus: float, num_gpus: float) -> dict[str, float]:
    """Return what Ray sets aside for one, by Ray's names."""
    return {"CPU": num_cpus, **({"GPU": num_gpus} if num_gpus else {})}


def never_all(num_cpus: float, num_gpus: float, nodes: Sequence[Resources], beside: float) -> float:
    """Enlarge the CPUs of each until no number of actors takes all of a node's.

    Ray starts an actor again wherever its share is free: when a node has died, also on the CPUs
    that others leave to tasks. Each would wait for the other, for ever. A node that holds one
    actor at most stays as it is.

    Args:
        num_cpus: CPUs of each.
        num_gpus: GPUs of each.
        nodes: Their resources.
        beside: CPUs that must be left to tasks.
    """
    for node in nodes:
        cpus = node.get("CPU", 0.0)
        possible = math.floor((cpus + _EPSILON) / num_cpus)
        if num_gpus:
            possible = min(possible, num_of_gpu(node, num_gpus))
        if possible > 1 and cpus - possible * num_cpus < beside - _EPSILON:
            larger = math.floor(100 * cpus / possible + 1) / 100
            return never_all(larger, num_gpus, nodes, beside)
    return num_cpus


def spread(fits: Sequence[int], number: int) -> int:
    """Say how many actors the fullest node gets if they are spread evenly.

    Args:
        fits: How many each node holds.
        number: Of actors.
    """
    fullest = 1
    while fullest < max(fits, default=1) and sum(min(fit, fullest) for fit in fits) < number:
        fullest += 1
    return fullest


def num_of_gpu(node: Resources, num_gpus: float) -> int:
    """Count the actors that a node's GPUs hold; of a fraction, Ray puts none across two GPUs."""
    gpus = node.get("GPU", 0.0) + _EPSILON
    if num_gpus < 1:
        return math.floor(gpus) * math.floor(1 / num_gpus + _EPSILON)
    return math.floor(gpus / num_gpus)
