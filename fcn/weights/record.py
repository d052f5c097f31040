"""The checkpoint record: all that has to be known about weights to use them, without torch.

A checkpoint is two objects side by side: `NAME.safetensors` with the tensors and `NAME.json`,
this record. Preprocessing travels with the weights and is never typed in twice.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

from fcn.architectures import FULL_WIDTH, PADDINGS, UPSAMPLINGS, check_choices
from fcn.weights import CheckpointError
from fcn.weights.classes import ClassLabel, check_labels, read_label

IGNORE_INDEX = 255
# Of the views of an image; smaller ones show nothing, larger ones fill the memory.
MIN_SCALE, MAX_SCALE = 0.1, 8.0

_JSON_TYPES = {
    "network": str,
    "width": int,
    "in_channels": int,
    "channel_order": str,
    "padding": str,
    "upsampling": str,
    "image_scale": float,
    "untrained_layers": list,
    "ignore_index": int,
    "weights_sha256": str,
    "provenance": dict,
}


@dataclass(frozen=True)
class Checkpoint:
    """The record of a checkpoint.

    Attributes:
        network: Name of the architecture, for `fcn.models.build`.
        classes: In order of the class index, background included.
        width: Channels of the first block, for networks that scale.
        padding: `paper` or `tight`, for the paper's networks.
        upsampling: `fixed` or `learned`, for the paper's networks.
        in_channels: Channels of the input image.
        channel_order: `RGB` or `BGR`, as the network wants its input.
        mean: Subtracted from every channel, in the range 0 to 1.
        std: What every channel is then divided by, in the range 0 to 1.
        image_scale: Factor of an image's height and width at which the network wants to see it:
            that at which it was trained. Its scores are brought back to the image's own size.
        ignore_index: Value of pixels without a class.
        weights_sha256: SHA-256 of the safetensors file; `random:SEED` for untrained weights.
        untrained_layers: Layers that hold initial values: weights to train from, not to label
            with. Empty for a whole network.
        provenance: Where the weights come from: data, recipe, commit, metrics.
    """

    network: str
    classes: tuple[ClassLabel, ...]
    width: int = FULL_WIDTH
    padding: str = PADDINGS[0]
    upsampling: str = UPSAMPLINGS[0]
    in_channels: int = 3
    channel_order: str = "RGB"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    image_scale: float = 1.0
    ignore_index: int = IGNORE_INDEX
    weights_sha256: str = ""
    untrained_layers: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what no network can be built from. Raises CheckpointError."""
        check_labels(self.classes)
        try:
            check_choices(self.network, self.width, self.padding, self.upsampling)
        except ValueError as error:
            raise CheckpointError(str(error)) from error
        if self.channel_order not in ("RGB", "BGR"):
            raise CheckpointError(f"channel_order={self.channel_order!r}; it is RGB or BGR")
        self._check_normalisation()

    def _check_normalisation(self) -> None:
        if not len(self.mean) == len(self.std) == self.in_channels:
            raise CheckpointError(f"mean and std need {self.in_channels} values each")
        if not MIN_SCALE <= self.image_scale <= MAX_SCALE:
            raise CheckpointError(
                f"image_scale={self.image_scale}; it is between {MIN_SCALE} and {MAX_SCALE}"
            )
        usable = all(map(math.isfinite, (*self.mean, *self.std))) and min(self.std) > 0
        if not usable:
            raise CheckpointError(
                f"mean={self.mean}, std={self.std}; they are finite numbers, std above 0"
            )

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self.classes)

    @property
    def untrained(self) -> bool:
        """Return whether the weights are random."""
        return self.weights_sha256.startswith("random:")

    def to_json(self) -> str:
        """Serialise the record."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @staticmethod
    def from_json(text: str | bytes) -> "Checkpoint":
        """Read a record.

        Raises:
            CheckpointError: It is no JSON object, or fields are missing, unknown or misshapen.
        """
        try:
            fields = json.loads(text)
            labels = tuple(read_label(entry) for entry in fields.pop("classes"))
            _check_types(fields)
            for name in ("mean", "std"):
                if name in fields:
                    fields[name] = tuple(float(value) for value in fields[name])
            fields["untrained_layers"] = tuple(fields.get("untrained_layers", ()))
            return Checkpoint(classes=labels, **fields)
        except CheckpointError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CheckpointError(f"no valid checkpoint record: {_reason(error)}") from error


def refuse_untrained(record: Checkpoint) -> None:
    """Refuse a checkpoint that is only a start for training.

    Raises:
        CheckpointError: Some of its layers are untrained; it names them.
    """
    if record.untrained_layers:
        raise CheckpointError(
            f"layers that nobody has trained: {', '.join(record.untrained_layers)}; these weights "
            "are a start for training, and label nothing"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return f"{type(error).__name__}: {error}"[:300]


def _check_types(fields: dict[str, Any]) -> None:
    for name, kind in _JSON_TYPES.items():
        if name in fields and type(fields[name]) is not kind:
            raise CheckpointError(f"{name}={fields[name]!r} is no {kind.__name__}")
