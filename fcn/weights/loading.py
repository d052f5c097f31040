"""Networks with their weights, from wherever those are."""

import fsspec

from fcn.models import Network
from fcn.weights import CheckpointError
from fcn.weights.conversion import load_published
from fcn.weights.files import restore
from fcn.weights.record import Checkpoint

_ENDING = ".safetensors"
_TORCHVISION = "torchvision:"


def load(uri: str, *, allow_untrained: bool = False) -> tuple[Network, Checkpoint]:
    """Load a checkpoint.

    Args:
        uri: `NAME.safetensors`: a local path, `s3://`, or whatever fsspec reads. Or
            `torchvision:FCN_ResNet50_Weights.DEFAULT`, which is downloaded once; a job should not
            depend on that and takes what `fcn import-weights` makes of it.
        allow_untrained: Whether layers may hold initial values, to train from.

    Returns:
        The network in evaluation mode and its record.

    Raises:
        CheckpointError: The files are missing or are no checkpoint, the SHA-256 differs, tensors
            do not fit, or layers are untrained.
    """
    if uri.startswith(_TORCHVISION):
        network, record = load_published(uri.removeprefix(_TORCHVISION))
        return network.eval(), record
    if not uri.endswith(_ENDING):
        raise CheckpointError(
            f"{uri!r} does not end in {_ENDING}; other weights become a checkpoint by "
            "`fcn import-weights`"
        )
    record = Checkpoint.from_json(_read(uri.removesuffix(_ENDING) + ".json"))
    return restore(record, _read(uri), allow_untrained=allow_untrained), record


def _read(uri: str) -> bytes:
    try:
        with fsspec.open(uri, "rb") as file:
            data: bytes = file.read()
    except (OSError, ValueError, ImportError) as error:
        raise CheckpointError(f"{uri!r} can't be read: {error}") from error
    return data
