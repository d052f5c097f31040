"""Entry: what Ray Train carries to its workers by way of its controller; without torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jobs.training.plan import TrainingPlan
from pipeline.errors import PipelineError
from pipeline.inspection import Inspection


@dataclass(frozen=True)
class WorkerConfig:
    """What the driver gives to every worker.

    Attributes:
        plan: What is trained.
        inspection: What the data holds.
        threads: Of the network, on a CPU.
        send: Takes worker 0's messages to the driver.
    """

    plan: TrainingPlan
    inspection: Inspection
    threads: int
    send: Callable[[dict[str, Any]], None]


def train_worker(fields: dict[str, Any]) -> PipelineError | None:
    """Train; what Ray Train calls on every worker.

    Args:
        fields: `config`: a `WorkerConfig`.

    Returns:
        Why the training ended before its end; None if it is done.
    """
    # Only workers need the network, whose import takes seconds: not Ray's controller.
    from jobs.training.worker import train  # noqa: PLC0415

    return train(fields["config"])
