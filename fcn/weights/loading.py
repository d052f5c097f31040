"""Networks with their weights, from wherever those are."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import fsspec

from fcn.models import Network
from fcn.weights import CheckpointError
from fcn.weights.conversion import load_published
from fcn.weights.files import restore_file
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
    with _opened(uri.removesuffix(_ENDING) + ".json") as file:
        record = Checkpoint.from_json(file.read())
    with _opened(uri) as file:
        return restore_file(record, file, allow_untrained=allow_untrained), record


@contextmanager
def _opened(uri: str) -> Iterator[IO[bytes]]:
    try:
        with fsspec.open(uri, "rb") as file:
            yield file
    except CheckpointError:
        raise
    except (OSError, ValueError, ImportError) as error:
        raise CheckpointError(f"{uri!r} can't be read: {error}") from error
