"""Weights that others have published, turned into checkpoints.

The tensors of a source are recognised by their names (`KINDS`), brought under the names of one of
our networks, and completed by what that kind of source is known to expect of its images. A source
of which anything is missing, left over or of another shape is refused.

pochih's FCN32s, FCN16s and FCN8s have the same tensors as his FCNs and add them up in another
order, which no file tells: only weights of FCNs are right for `fcn_all_skips_vgg16`.
"""

import argparse
import dataclasses
import io
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import safetensors
import safetensors.torch
import torch

from fcn.architectures import ARCHITECTURES, FULL_WIDTH, PADDINGS, UPSAMPLING, WIDTH
from fcn.models import Network
from fcn.upsample import bilinear_kernel
from fcn.weights import CheckpointError
from fcn.weights.classes import VOC_CLASSES, ClassLabel, numbered_classes
from fcn.weights.files import build_recorded, check_tensors
from fcn.weights.published import Kind, Preprocessing, Tensors, published, recognise, shorten
from fcn.weights.record import Checkpoint

# What trainers wrap a state dict in, and what DataParallel puts before every name.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PARALLEL = "module."
_SAFETENSORS = ".safetensors"
# What files of torch.save begin with: zip archives, and pickles before PyTorch 1.6.
_PICKLES = (b"PK\x03\x04", b"\x80")
# Layers without trained weights start from the same values in every import.
_SEED = 0


@dataclass(frozen=True)
class Wanted:
    """What a source is to become; None where the source's kind decides.

    Attributes:
        network: Name of the architecture.
        padding: `paper` or `tight`, for the paper's networks.
        num_classes: Score maps, background included.
        classes: Their names and colours.
        channel_order: `RGB` or `BGR`.
        mean: Per channel, in the range 0 to 1.
        std: The same.
        provenance: The provenance of the record; what the import knows is added.
    """

    network: str
    padding: str = PADDINGS[0]
    num_classes: int | None = None
    classes: tuple[ClassLabel, ...] | None = None
    channel_order: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Imported:
    """A network filled from a source, ready for `fcn.weights.files.save`.

    Attributes:
        record: Without the hash of the weights.
        network: The weights.
        kind: What the source was recognised as.
        dropped: The source's tensors that are not in the network.
    """

    record: Checkpoint
    network: Network
    kind: Kind
    dropped: tuple[str, ...]

    @property
    def num_parameters(self) -> int:
        """Numbers that training changes."""
        return sum(parameter.numel() for parameter in self.network.parameters())


def load_published(name: str) -> tuple[Network, Checkpoint]:
    """Download weights by torchvision's name, into its cache, and convert them.

    Args:
        name: As for `published`.

    Returns:
        The network and its record; not in evaluation mode.

    Raises:
        CheckpointError: They can't be downloaded, or are none that can be imported.
    """
    url = published(name).url
    try:
        tensors = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{url} can't be downloaded: {error}") from error
    imported = convert(tensors, Wanted(recognise(tensors).networks[0]))
    return imported.network, imported.record


def read_tensors(data: bytes, name: str) -> Tensors:
    """Read the state dict of a file; no code from it is run.

    Args:
        data: A file of `torch.save`, or a safetensors file.
        name: The name of the file: its ending says which.

    Raises:
        CheckpointError: It can't be read so, or holds something else.
    """
    loaded = _read_safetensors(data) if name.endswith(_SAFETENSORS) else _read_pickle(data)
    # Trainers wrap what other trainers have wrapped.
    for wrapper in _WRAPPERS * 2:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not loaded:
        raise CheckpointError(f"it holds {type(loaded).__name__} and no state dict")
    foreign = [str(key) for key, value in loaded.items() if not isinstance(value, torch.Tensor)]
    if foreign:
        raise CheckpointError(f"it holds more than tensors: {shorten(foreign)}")
    prefix = _PARALLEL if all(str(key).startswith(_PARALLEL) for key in loaded) else ""
    return {str(key).removeprefix(prefix): value.detach() for key, value in loaded.items()}


def convert(tensors: Tensors, wanted: Wanted) -> Imported:
    """Fill a network with the tensors of a source.

    Args:
        tensors: As `read_tensors` gives them.
        wanted: What they are to become.

    Raises:
        CheckpointError: They do not fit the network or the classes that are wanted, or tensors
            are missing, surplus, of another shape or not finite; it lists them.
    """
    kind = _kind_for(wanted.network, tensors)
    record, kernels = _fix_upsampling(_describe(kind, tensors, wanted), tensors)
    expected = _expected(record)
    sources = {name: source for name in expected if (source := _source_of(kind, name)) is not None}
    dropped = tuple(
        name
        for name in tensors
        if name in kernels or (name.startswith(kind.dropped) and name not in sources.values())
    )
    found = {name: tensor for name, tensor in tensors.items() if name not in dropped}
    whose = f"{record.network}, made from {kind.name}"
    fitted = _fit({sources[name]: expected[name] for name in sources}, found, whose)
    record = dataclasses.replace(
        record,
        untrained_layers=_layers(name for name in expected if name not in sources),
        provenance={**wanted.provenance, "kind": kind.name, "dropped": list(dropped)},
    )
    network = _fill(record, {name: fitted[source] for name, source in sources.items()})
    return Imported(record, network, kind, dropped)


def _kind_for(network: str, tensors: Tensors) -> Kind:
    kind = recognise(tensors)
    if network not in kind.networks:
        raise CheckpointError(
            f"network={network!r} does not fit: the source is {kind.name} and becomes "
            f"{' or '.join(kind.networks)}{kind.hint}"
        )
    return kind


def _fix_upsampling(record: Checkpoint, tensors: Tensors) -> tuple[Checkpoint, set[str]]:
    """Leave out kernels that only interpolate, as they do where nobody has trained them.

    Returns:
        The record, and the names of what its network no longer has.
    """
    kernels = {name for name in _expected(record) if name.startswith("upscore")}
    there = kernels & tensors.keys()
    # A source may leave out what it does not train, but not some of it.
    if there and not (there == kernels and all(_interpolates(tensors[name]) for name in kernels)):
        return record, set()
    return dataclasses.replace(record, upsampling="fixed"), there


def _expected(record: Checkpoint) -> Tensors:
    # Without memory: what a file claims is checked before anything of its size is made.
    with torch.device("meta"):
        return build_recorded(record).state_dict()


def _read_safetensors(data: bytes) -> Any:
    try:
        # Its order is another one in every process.
        return dict(sorted(safetensors.torch.load(data).items()))
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"no readable safetensors file: {error}") from error


def _read_pickle(data: bytes) -> Any:
    if not data.startswith(_PICKLES):
        raise CheckpointError(
            f"no readable PyTorch file: it begins with {data[:12]!r}, as no file of torch.save does"
        )
    try:
        # What torchvision's own training keeps its arguments in; a Namespace runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "it is no file of tensors alone, and code from files is not run; where you trust it, "
            "load it in Python and save the weights: torch.save(model.state_dict(), FILE) "
            f"({_first_line(error)})"
        ) from error
    # A broken file can break its reader anywhere.
    except Exception as error:
        reason = _first_line(error) or type(error).__name__
        raise CheckpointError(f"no readable PyTorch file: {reason}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(". ")[0][:200]


def _describe(kind: Kind, tensors: Tensors, wanted: Wanted) -> Checkpoint:
    first = _convolution(tensors, f"{kind.first}.weight")
    choices = ARCHITECTURES[wanted.network]
    in_channels = first[1]
    numbers = _preprocessing(kind.preprocessing, wanted, in_channels)
    learned = UPSAMPLING in choices and kind.scores is not None
    return Checkpoint(
        network=wanted.network,
        classes=_classes(kind, tensors, wanted),
        width=first[0] if WIDTH in choices else FULL_WIDTH,
        padding=wanted.padding,
        upsampling="learned" if learned else "fixed",
        in_channels=in_channels,
        **dataclasses.asdict(numbers),
    )


def _convolution(tensors: Tensors, name: str) -> torch.Size:
    if name not in tensors:
        raise CheckpointError(f"missing: {name}")
    if tensors[name].dim() != 4:
        raise CheckpointError(
            f"{name} has shape {tuple(tensors[name].shape)}; that of a convolution has four numbers"
        )
    return tensors[name].shape


def _preprocessing(known: Preprocessing, wanted: Wanted, in_channels: int) -> Preprocessing:
    mean, std = wanted.mean or known.mean, wanted.std or known.std
    for name, numbers in (("mean", mean), ("std", std)):
        if len(numbers) != in_channels:
            raise CheckpointError(
                f"{name} has {len(numbers)} numbers, the source takes images of {in_channels} "
                f"channels; give {name} with one number for each"
            )
    return Preprocessing(wanted.channel_order or known.channel_order, mean, std)


def _classes(kind: Kind, tensors: Tensors, wanted: Wanted) -> tuple[ClassLabel, ...]:
    given = wanted.num_classes if wanted.classes is None else len(wanted.classes)
    if wanted.num_classes not in (None, given):
        raise CheckpointError(f"num_classes={wanted.num_classes}, but classes has {given}")
    if kind.scores is None:
        if given is None:
            raise CheckpointError(
                f"the source is {kind.name}, whose classes are others; give num_classes or classes"
            )
        return wanted.classes or numbered_classes(given)
    found = _convolution(tensors, f"{kind.scores}.weight")[0]
    if given not in (None, found):
        source = "num_classes" if wanted.classes is None else "classes"
        raise CheckpointError(
            f"{source} says {given} classes, the source has {found} ({kind.scores}.weight); "
            f"leave {source} out or make it {found}"
        )
    names = VOC_CLASSES if kind.voc else ()
    return wanted.classes or (names if len(names) == found else numbered_classes(found))


def _interpolates(kernel: torch.Tensor) -> bool:
    if kernel.dim() != 4 or kernel.shape[0] != kernel.shape[1] or not kernel.is_floating_point():
        return False
    tent = bilinear_kernel(kernel.shape[-1])
    if kernel.shape[-2:] != tent.shape:
        return False
    dense = torch.zeros(kernel.shape)
    dense[range(len(dense)), range(len(dense))] = tent
    rounding = torch.finfo(kernel.dtype).eps
    return torch.allclose(kernel.float(), dense, rtol=0, atol=rounding)


def _layers(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.rpartition(".")[0] for name in names))


def _source_of(kind: Kind, name: str) -> str | None:
    layer, _, tensor = name.rpartition(".")
    source = kind.source_of(layer)
    return None if source is None else f"{source}.{tensor}"


def _fit(expected: Tensors, found: Tensors, whose: str) -> Tensors:
    """Bring a source's tensors into the network's shapes and types, under the source's names.

    Raises:
        CheckpointError: As `convert`.
    """
    fitted = {
        name: _shape(tensor, expected[name]) if name in expected else tensor
        for name, tensor in found.items()
    }
    for name, tensor in expected.items():
        # PyTorch before 0.4.1 did not count batches.
        if name.endswith(".num_batches_tracked") and name not in fitted:
            fitted[name] = torch.zeros(tensor.shape, dtype=tensor.dtype)
    wrong = [
        f"{name} ({tensor.dtype})"
        for name, tensor in fitted.items()
        if name in expected and expected[name].is_floating_point() != tensor.is_floating_point()
    ]
    if wrong:
        raise CheckpointError(f"tensors of a type that {whose}, can't take: {shorten(wrong)}")
    check_tensors(expected, fitted, whose)
    return fitted


def _shape(tensor: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    if tensor.is_floating_point():
        # Half precision becomes fp32 exactly.
        tensor = tensor.float()
    # A fully connected layer is a convolution over all that it sees.
    same = tensor.shape[:1] == expected.shape[:1] and tensor.numel() == expected.numel()
    return tensor.reshape(expected.shape) if tensor.dim() == 2 and same else tensor


def _fill(record: Checkpoint, tensors: Tensors) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        network = build_recorded(record)
    network.load_state_dict({**network.state_dict(), **tensors})
    return network.eval()
