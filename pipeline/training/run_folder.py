"""The folder of a training run: what stands there, and in which order it appears.

    <output>/<run_name>/run.json                        put-if-absent: what decides the numbers;
                                                        once the data has passed its inspection
    <output>/<run_name>/inspection.json                 what the data set holds, counted once
    <output>/<run_name>/checkpoints/last.safetensors    what a killed run goes on from
    <output>/<run_name>/checkpoints/best.safetensors    the weights with the highest mean IU on val
    <output>/<run_name>/metrics.jsonl                   one line per evaluation
    <output>/<run_name>/tensorboard/                    the same and more, for TensorBoard
    <output>/<run_name>/model.safetensors, model.json   for `label`; model.json appears last

Checkpoints are replaced whole: a store shows the old object or the new one. So nothing has to be
deleted, and a write that fails leaves the last good checkpoint.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from fcn.weights.record import Checkpoint
from pipeline.errors import FingerprintMismatch, InputError
from pipeline.inputs.inspect import Inspection
from pipeline.store.storage import Storage, sha256_hex
from pipeline.training.plan import TrainingPlan
from pipeline.versions import versions

BEST, LAST = "best", "last"

# Of a refusal.
_MAX_SHOWN = 5
_MAX_CHARACTERS = 60


class TrainingRecord(BaseModel):
    """run.json: put-if-absent, never changed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    run_name: str
    fingerprint: str
    created_at: datetime
    settings: dict[str, Any]
    deciding: dict[str, Any]
    versions: dict[str, str]


@dataclass(frozen=True)
class TrainingRun:
    """A run in its output."""

    storage: Storage
    folder: str

    def checkpoint_uri(self, which: str) -> str:
        """URI of the checkpoint `BEST` or `LAST`."""
        return f"{self.folder}/checkpoints/{which}.safetensors"

    def read_checkpoint(self, which: str) -> bytes | None:
        """Read a checkpoint; None if there is none. Raises StoreError."""
        return self.storage.find(self.checkpoint_uri(which))

    def write_checkpoint(self, which: str, data: bytes) -> None:
        """Replace a checkpoint, whole or not at all. Raises StoreError."""
        self.storage.write(self.checkpoint_uri(which), data)

    @property
    def model_uri(self) -> str:
        """URI of the weights for `label`."""
        return f"{self.folder}/model.safetensors"

    @property
    def record_uri(self) -> str:
        """URI of their record, which appears last."""
        return f"{self.folder}/model.json"

    def model(self) -> Checkpoint | None:
        """Read the record of the finished run; None before its end."""
        data = self.storage.find(self.record_uri)
        return None if data is None else Checkpoint.from_json(data)

    def write_model(self, record: Checkpoint, data: bytes) -> None:
        """Write the checkpoint for `label`. Raises StoreError."""
        self.storage.write(self.model_uri, data)
        self.storage.write(self.record_uri, record.to_json().encode())

    def start(self, plan: TrainingPlan) -> None:
        """Write run.json; what stands there already is checked.

        Raises:
            FingerprintMismatch: As `check`.
        """
        record = TrainingRecord(
            run_name=plan.settings.run_name,
            fingerprint=plan.fingerprint,
            created_at=datetime.now(UTC),
            settings=plan.settings.model_dump(mode="json"),
            deciding=plan.deciding,
            versions=versions(),
        )
        if not self.storage.create(self._run_uri, record.model_dump_json(indent=1).encode()):
            self.check(plan)

    def check(self, plan: TrainingPlan) -> None:
        """Make sure that the run, if it was started, is this one.

        Raises:
            FingerprintMismatch: Something else decides its numbers; it says what.
        """
        data = self.storage.find(self._run_uri)
        if data is None:
            return
        try:
            found = TrainingRecord.model_validate_json(data)
        except ValueError as error:
            raise InputError(f"{self._run_uri} is damaged; give another run_name") from error
        if found.fingerprint != plan.fingerprint:
            differing = _differing(found.deciding, json.loads(json.dumps(plan.deciding)))
            more = len(differing) - _MAX_SHOWN
            raise FingerprintMismatch(
                f"run_name={plan.settings.run_name!r} was started with something else: "
                f"{'; '.join(differing[:_MAX_SHOWN])}{f'; and {more} more' if more > 0 else ''}. "
                "Give the same, or another run_name (and --weights, to start from this run's "
                "model.safetensors)"
            )

    @property
    def _run_uri(self) -> str:
        return f"{self.folder}/run.json"

    def inspection(self) -> Inspection | None:
        """Read what was found of the data; None before it was looked at."""
        data = self.storage.find(f"{self.folder}/inspection.json")
        return None if data is None else Inspection.model_validate_json(data)

    def write_inspection(self, found: Inspection) -> None:
        """Keep what was found of the data. Raises StoreError."""
        uri = f"{self.folder}/inspection.json"
        self.storage.write(uri, found.model_dump_json(indent=1).encode())

    def metrics(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl. Raises StoreError."""
        data = self.storage.find(self._metrics_uri) or b""
        return [json.loads(line) for line in data.splitlines()]

    def metrics_file(self, lines: Sequence[dict[str, Any]]) -> tuple[str, bytes]:
        """Return the URI of metrics.jsonl, and what it holds with these lines."""
        text = "".join(json.dumps(line) + "\n" for line in lines)
        return self._metrics_uri, text.encode()

    @property
    def rates_uri(self) -> str:
        """URI of what the rate finder has seen."""
        return f"{self.folder}/rates.csv"

    def write_rates(self, data: bytes) -> None:
        """Write what the rate finder has seen. Raises StoreError."""
        self.storage.write(self.rates_uri, data)

    def rates(self) -> bytes:
        """Read what the rate finder has seen. Raises StoreError."""
        return self.storage.read(self.rates_uri)

    @property
    def _metrics_uri(self) -> str:
        return f"{self.folder}/metrics.jsonl"


def completed(record: Checkpoint, data: bytes, provenance: dict[str, Any]) -> Checkpoint:
    """Complete a record by the hash of its weights and where they come from."""
    return dataclasses.replace(record, weights_sha256=sha256_hex(data), provenance=provenance)


def _differing(before: Any, now: Any, path: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        names = sorted(before.keys() | now.keys())
        return [
            line
            for name in names
            for line in _differing(before.get(name), now.get(name), f"{path}.{name}".lstrip("."))
        ]
    if before == now:
        return []
    if path.startswith(("train", "val")) and isinstance(before, str):
        return [f"the samples of {path} are others"]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = enumerate(zip(before, now, strict=True))
        return [line for index, pair in pairs for line in _differing(*pair, f"{path}[{index}]")]
    return [f"{path} was {_shown(before)}, is {_shown(now)}"]


def _shown(value: Any) -> str:
    return f"{len(value)} of them" if isinstance(value, list) else repr(value)[:_MAX_CHARACTERS]
