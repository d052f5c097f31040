"""How many workers a training gets, and what Ray sets aside for each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.cluster.packing import Node, never_all, num_that_fit, resources
from pipeline.errors import SettingError
from pipeline.settings.train import TrainSettings

# Loading needs a CPU beside the workers, also where there are two.
_CPUS_FOR_LOADING = 1.0
# Half a CPU for one loading task is the least that gets on.
_BESIDE = _CPUS_FOR_LOADING / 2
_MIN_CPUS = 0.1


@dataclass(frozen=True)
class Workers:
    """The workers of a training.

    Attributes:
        number: How many; more than that join up to `most` where the training is elastic.
        most: See `number`.
        num_cpus: CPUs that Ray sets aside for each.
        num_gpus: GPUs for each.
        threads: The threads of each one's network, on a CPU.
    """

    number: int
    most: int
    num_cpus: float
    num_gpus: float
    threads: int

    @property
    def resources(self) -> dict[str, float]:
        """What Ray sets aside for one, by Ray's names."""
        return resources(self.num_cpus, self.num_gpus)

    def __str__(self) -> str:
        """Say it for the log."""
        number = str(self.number) if self.number == self.most else f"{self.number} to {self.most}"
        return (
            f"{number} worker(s), each with {self.num_gpus:g} GPU, {self.num_cpus:g} CPU, "
            f"{self.threads} thread(s)"
        )


def choose_workers(settings: TrainSettings, nodes: Sequence[Node]) -> Workers:
    """Fit workers to the nodes, as far as the settings leave it open.

    Args:
        settings: What the training was asked to do.
        nodes: Those that are up.

    Raises:
        SettingError: What is asked for does not fit this machine. A cluster may grow.
    """
    # A head without CPUs holds no worker.
    alive = [node.resources for node in nodes if node.num_cpus]
    num_gpus = settings.gpus_per_worker
    if num_gpus is None:
        num_gpus = 1.0 if any(node.get("GPU") for node in alive) else 0.0
    cores = max((node.get("CPU", 0.0) for node in alive), default=1.0)
    most = settings.max_workers or settings.num_workers
    on_node = math.ceil(most / max(1, len(alive)))
    share = math.floor(100 * (cores - _CPUS_FOR_LOADING) / on_node) / 100
    num_cpus = settings.cpus_per_worker or (1.0 if num_gpus else max(_MIN_CPUS, share))
    if settings.ray_address is not None:
        num_cpus = never_all(num_cpus, num_gpus, alive, _BESIDE)
    capacity = sum(num_that_fit(node, num_cpus, num_gpus, _BESIDE) for node in alive)
    if capacity < settings.num_workers and settings.ray_address is None:
        raise SettingError(
            f"there is room for {capacity} worker(s) of {num_cpus:g} CPU and {num_gpus:g} GPU "
            f"beside loading, {settings.num_workers} are wanted; lower num_workers, "
            "cpus_per_worker or gpus_per_worker"
        )
    if num_gpus % 1 and most > 1:
        raise SettingError(
            f"gpus_per_worker={num_gpus}: workers that train together need whole GPUs"
        )
    return Workers(
        number=settings.num_workers,
        # Ray would fill the nodes to the last CPU, and leave none for loading.
        most=max(settings.num_workers, min(most, capacity)),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        threads=settings.threads_per_worker or max(1, int(cores) // on_node),
    )
