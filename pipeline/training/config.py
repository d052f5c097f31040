"""What the driver of a training gives to its workers; without torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.inputs.inspect import Inspection
from pipeline.training.plan import TrainingPlan


@dataclass(frozen=True)
class WorkerConfig:
    """What the driver gives to every worker.

    Attributes:
        plan: What is trained.
        inspection: What the data holds.
        threads: The threads of the network, on a CPU.
        send: Takes worker 0's messages to the driver.
    """

    plan: TrainingPlan
    inspection: Inspection
    threads: int
    send: Callable[[dict[str, Any]], None]
