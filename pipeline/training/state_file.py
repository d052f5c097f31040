"""Training checkpoints as bytes: one safetensors file with the tensors and the position.

It holds weights, running means, the optimizer's state and the position; order, views and dropout
follow from the seed and the position. Reading it runs no code.
"""

import dataclasses
import json
from dataclasses import dataclass

import safetensors
import safetensors.torch
import torch

from pipeline.errors import InputError

_KEY = "position"


@dataclass(frozen=True)
class Position:
    """How far a run is.

    Attributes:
        stage: Index of the stage.
        step: Steps done in it.
        seconds: Of training in it, as the time limit counts.
        total_steps: Steps done in all stages.
        best_mean_iu: Highest so far in this stage; None before the first evaluation.
        loss_sum: Of the losses of the steps since the last evaluation.
        num_losses: Of those steps.
        num_not_better: Evaluations in a row, up to now, that were not the best so far.
        precision: Arithmetic of the forward pass; empty before the first step, and in checkpoints
            of earlier versions.
    """

    stage: int = 0
    step: int = 0
    seconds: float = 0.0
    total_steps: int = 0
    best_mean_iu: float | None = None
    loss_sum: float = 0.0
    num_losses: int = 0
    num_not_better: int = 0
    precision: str = ""


def to_bytes(position: Position, tensors: dict[str, torch.Tensor]) -> bytes:
    """Serialise a checkpoint."""
    text = json.dumps(dataclasses.asdict(position))
    return safetensors.torch.save(tensors, metadata={_KEY: text})


def from_bytes(data: bytes, uri: str) -> tuple[Position, dict[str, torch.Tensor]]:
    """Read a checkpoint.

    Args:
        data: The file.
        uri: Where it is from, for the message.

    Raises:
        InputError: It is damaged.
    """
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return Position(**json.loads(header["__metadata__"][_KEY])), tensors
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{uri} is damaged: {error}; give another run_name, or restore the object"
        ) from error
