"""Entry: what Ray Train carries to its workers by way of its controller; without torch."""

from typing import Any

from pipeline.errors import PipelineError


def train_worker(fields: dict[str, Any]) -> PipelineError | None:
    """Train; what Ray Train calls on every worker.

    Args:
        fields: `config`: a `WorkerConfig`.

    Returns:
        Why the training ended before its end; None if it is done.
    """
    # Only workers need the network, whose import takes seconds: not Ray's controller.
    from pipeline.training.worker import train  # noqa: PLC0415

    return train(fields["config"])
