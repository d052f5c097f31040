"""Which network labels, and its fingerprint: all that decides a mask's pixels, without torch."""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fcn.architectures import ARCHITECTURES, FULL_WIDTH, PADDINGS, WIDTH
from fcn.weights import CheckpointError
from fcn.weights.classes import ClassLabel, numbered_classes, parse_classes
from fcn.weights.record import Checkpoint, refuse_untrained
from pipeline.errors import SettingError, StoreError
from pipeline.images.decode import DECODER
from pipeline.labelling.records import ClassRecord, NetworkRecord
from pipeline.labelling.runs import Run
from pipeline.settings.label import LabelSettings
from pipeline.store.storage import Storage

_log = logging.getLogger(__name__)

# The precision of a network of which neither settings nor an earlier run say it.
AUTO = "auto"
_COMPILERS = ("g++", "gcc", "clang", "cc")
_DEFAULT_NUM_CLASSES = 21
_NUM_CHANNELS = 3
# Untrained networks are for trying things out: a narrow one is as good.
_RANDOM_WIDTH = 16


@dataclass(frozen=True)
class Network:
    """What a replica loads and how it scores: all that decides a mask's pixels.

    `uri` is None for random weights; `flip` and `scales` are the views of test time. Of a lower
    confidence than `ignore_below`, pixels are 255.
    """

    checkpoint: Checkpoint
    uri: str | None
    precision: str
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    compiled: bool = False
    ignore_below: float = 0.0

    def record(self) -> NetworkRecord:
        """Return what run.json and the tables say of the network."""
        deciding = self._deciding()
        text = json.dumps(deciding, sort_keys=True)
        return NetworkRecord(
            fingerprint=hashlib.sha256(text.encode()).hexdigest()[:32],
            weights=self.uri or self.checkpoint.weights_sha256,
            untrained=self.checkpoint.untrained,
            deciding=deciding,
            classes=[
                ClassRecord(id=index, name=label.name, color=label.color)
                for index, label in enumerate(self.checkpoint.classes)
            ],
        )

    def as_in(self, runs: Sequence[Run], source: str) -> "Network":
        """Take the precision of the newest run of this network, or leave it open.

        Runs of the same input come first: another input's may be somebody's trial. A cluster that
        gets other GPUs does not label an output anew.

        Args:
            runs: The runs of the output, oldest first.
            source: URI of the input.
        """
        ours = _but_for_versions(json.loads(json.dumps(self._deciding())))
        of_input = [run for run in runs if run.record.input.rstrip("/") == source.rstrip("/")]
        for run in (*reversed(of_input), *reversed(runs)):
            deciding = run.record.network.deciding
            if _but_for_versions(deciding) == ours:
                precision = deciding["precision"]
                _log.info("precision=auto: %s, as in run %s", precision, run.run_id)
                return dataclasses.replace(self, precision=precision)
        return self

    def _deciding(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self.checkpoint)
        # A checkpoint with untrained layers labels nothing.
        del fields["provenance"], fields["untrained_layers"]
        fields["classes"] = [[label.name, *label.color] for label in self.checkpoint.classes]
        for name in ("mean", "std"):
            fields[name] = list(fields[name])
        views = {"flip": self.flip, "scales": list(self.scales), "compiled": self.compiled}
        if self.ignore_below:
            # Networks that ignore nothing keep the fingerprint that they had before one could.
            views["ignore_below"] = self.ignore_below
        return {**fields, **views, "decoder": DECODER, "precision": self.precision}


def _but_for_versions(deciding: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what an upgrade or another choice of precision changes."""
    return {name: deciding[name] for name in deciding if name not in ("precision", "decoder")}


def describe_network(storage: Storage, settings: LabelSettings) -> Network:
    """Read the checkpoint's record, without the weights and without torch.

    Raises:
        SettingError: There is no such checkpoint, or it does not fit the settings.
    """
    try:
        if settings.random_weights:
            return _network(_random_record(storage, settings), None, settings)
        if not settings.weights.endswith(".safetensors"):
            raise SettingError(
                f"weights={settings.weights!r} must end in .safetensors: a run of `train` has "
                "such a checkpoint at OUTPUT/RUN_NAME/model.safetensors, and `fcn import-weights` "
                "makes one of what others have published"
            )
        record_uri = settings.weights.removesuffix(".safetensors") + ".json"
        both = f"weights={settings.weights!r} and the record beside it"
        record = Checkpoint.from_json(_read(storage, record_uri, both))
        refuse_untrained(record)
        if settings.padding is not None:
            record = dataclasses.replace(record, padding=settings.padding)
    except CheckpointError as error:
        raise SettingError(f"weights={settings.weights!r}: {error}") from error
    _check_expectations(record, settings)
    return _network(record, settings.weights, settings)


def _network(record: Checkpoint, uri: str | None, settings: LabelSettings) -> Network:
    return Network(
        *(record, uri, settings.precision, settings.flip, settings.scales),
        compiled=settings.compiled,
        ignore_below=settings.ignore_below,
    )


def check_weights(storage: Storage, network: Network) -> None:
    """Compare the weights' bytes with their record, before any replica is started.

    Raises:
        SettingError: They differ, or the network is unknown.
    """
    if network.uri is None:
        return
    found = hashlib.sha256(_read(storage, network.uri, "weights")).hexdigest()
    if found != network.checkpoint.weights_sha256:
        raise SettingError(
            f"weights={network.uri!r} has sha256 {found}, but its record says "
            f"{network.checkpoint.weights_sha256}; copy both files again"
        )


def check_compiler(network: Network) -> None:
    """Refuse to compile on a machine that has no compiler of any kind.

    A replica finds out whether one works, and on which device it has to.

    Raises:
        SettingError: There is none.
    """
    names = (*_COMPILERS, *filter(None, map(os.environ.get, ("CXX", "CC"))))
    if network.compiled and not any(map(shutil.which, names)):
        raise SettingError(
            f"compiled: this machine has no compiler (none of {', '.join(names)}), which "
            "torch.compile needs; install g++, or leave --compiled out"
        )


def _random_record(storage: Storage, settings: LabelSettings) -> Checkpoint:
    return Checkpoint(
        network=settings.network,
        classes=_classes(storage, settings),
        width=settings.width or _default_width(settings.network),
        padding=settings.padding or PADDINGS[0],
        weights_sha256=settings.weights,
    )


def _default_width(network: str) -> int:
    return _RANDOM_WIDTH if WIDTH in ARCHITECTURES.get(network, ()) else FULL_WIDTH


def _classes(storage: Storage, settings: LabelSettings) -> tuple[ClassLabel, ...]:
    if settings.classes is None:
        return numbered_classes(settings.num_classes or _DEFAULT_NUM_CLASSES)
    classes = parse_classes(_read(storage, settings.classes, "classes"))
    if settings.num_classes not in (None, len(classes)):
        raise SettingError(
            f"num_classes={settings.num_classes}, but {settings.classes} has {len(classes)} classes"
        )
    return classes


def _check_expectations(record: Checkpoint, settings: LabelSettings) -> None:
    if record.in_channels != _NUM_CHANNELS:
        raise SettingError(
            f"weights={settings.weights!r} takes {record.in_channels} channels; images are decoded "
            f"to {_NUM_CHANNELS} (RGB)"
        )
    if settings.num_classes not in (None, record.num_classes):
        raise SettingError(
            f"num_classes={settings.num_classes}, but the checkpoint {settings.weights} has "
            f"{record.num_classes} classes; leave num_classes out, or use another checkpoint"
        )
    if settings.weights_sha256 not in (None, record.weights_sha256):
        raise SettingError(
            f"weights_sha256={settings.weights_sha256}, but the checkpoint {settings.weights} "
            f"has {record.weights_sha256}"
        )


def _read(storage: Storage, uri: str, field: str) -> bytes:
    try:
        return storage.read(uri)
    except StoreError as error:
        if error.refused:
            raise SettingError(f"{field}: {error.message}") from error
        raise
