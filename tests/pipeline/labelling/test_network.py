"""Which network labels: its record, its fingerprint, and what is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from fcn.weights.classes import ClassLabel, numbered_classes
from fcn.weights.record import Checkpoint
from pipeline.errors import SettingError
from pipeline.labelling.network import (
    Network,
    check_compiler,
    check_weights,
    describe_network,
)
from pipeline.settings.label import LabelSettings
from pipeline.store.storage import Storage, sha256_hex

_STORAGE = Storage()

# The fingerprint

_CHECKPOINT = Checkpoint("fcn_all_skips", numbered_classes(3), width=4, weights_sha256="random:0")
_RENAMED = (ClassLabel("background", (0, 0, 0)), *numbered_classes(3)[1:])
_RECOLOURED = (ClassLabel("class_0", (9, 9, 9)), *numbered_classes(3)[1:])


def _fingerprint(precision: str = "fp32", uri: str | None = None, **fields: Any) -> str:
    return Network(dataclasses.replace(_CHECKPOINT, **fields), uri, precision).record().fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"weights_sha256": "random:1"},
        {"width": 8},
        {"classes": _RENAMED},
        {"classes": _RECOLOURED},
        {"classes": tuple(reversed(_CHECKPOINT.classes))},
        {"channel_order": "BGR"},
        {"mean": (0.5, 0.5, 0.5)},
        {"std": (0.5, 0.5, 0.5)},
        {"network": "fcn_all_skips_vgg16"},
        {"ignore_index": 254},
        {"precision": "bf16"},
    ],
    ids=str,
)
def test_what_decides_the_pixels_is_in_the_fingerprint(change: dict[str, Any]) -> None:
    """Other weights, network, classes, preprocessing or precision are another fingerprint."""
    assert _fingerprint(**change) != _fingerprint()


@pytest.mark.parametrize("change", [{"provenance": {"a": 1}}, {"uri": "s3://b/w"}], ids=str)
def test_what_does_not_decide_is_not(change: dict[str, Any]) -> None:
    """Where the weights lie and come from is no part of the fingerprint."""
    assert _fingerprint(**change) == _fingerprint()


def test_the_decoder_is_in_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other rules of decoding, or another Pillow, are another fingerprint."""
    before = _fingerprint()
    monkeypatch.setattr("pipeline.labelling.network.DECODER", "rules-2 pillow-0")
    assert _fingerprint() != before


@pytest.mark.parametrize(
    "fields",
    [{"batch_size": 99}, {"png_compress_level": 9}, {"max_shard_images": 1}, {"max_replicas": 4}],
    ids=str,
)
def test_speed_is_no_part_of_the_fingerprint(fields: dict[str, Any]) -> None:
    """Settings that change speed or size, and no pixel, keep the fingerprint."""
    given, changed = (
        LabelSettings(input="in", output="out", weights="random:0", **more) for more in ({}, fields)
    )
    records = [describe_network(_STORAGE, one).record() for one in (given, changed)]
    assert records[0] == records[1]


def test_the_fingerprint_survives_the_record() -> None:
    """What decides the pixels is plain JSON: run.json gives it back as it was."""
    record = Network(_CHECKPOINT, None, "fp32").record()
    assert json.loads(json.dumps(record.deciding)) == record.deciding
    assert type(record).model_validate_json(record.model_dump_json()) == record
    assert record.untrained
    assert [(label.id, label.name, label.color) for label in record.classes] == [
        *((0, "class_0", (0, 0, 0)), (1, "class_1", (128, 0, 0)), (2, "class_2", (0, 128, 0))),
    ]


# The checkpoint


def _write_checkpoint(folder: Path, **fields: Any) -> str:
    data = b"weights, as far as their hash goes"
    fields = {"weights_sha256": sha256_hex(data), **fields}
    record = dataclasses.replace(_CHECKPOINT, **fields)
    (folder / "model.safetensors").write_bytes(data)
    (folder / "model.json").write_text(record.to_json())
    return f"{folder}/model.safetensors"


def _describe(weights: object, **fields: Any) -> Network:
    return describe_network(
        _STORAGE, LabelSettings(input="in", output="out", weights=str(weights), **fields)
    )


def test_a_checkpoint_is_described_by_its_record(tmp_path: Path) -> None:
    """The network is what the record beside the weights says."""
    weights = _write_checkpoint(tmp_path)
    network = _describe(weights, num_classes=3, precision="bf16")
    assert network.checkpoint.to_json() == (tmp_path / "model.json").read_text()
    assert (network.uri, network.precision) == (f"file://{weights}", "bf16")
    assert not network.record().untrained
    check_weights(_STORAGE, network)


def test_weights_are_not_read_to_describe_them(tmp_path: Path) -> None:
    """Describing a network needs its record only; checking it needs the weights."""
    weights = _write_checkpoint(tmp_path)
    Path(weights).unlink()
    network = _describe(weights)
    with pytest.raises(SettingError, match=r"weights: .*model\.safetensors does not exist"):
        check_weights(_STORAGE, network)


def test_other_weights_than_the_record_says_are_refused(tmp_path: Path) -> None:
    """Weights of another hash are refused before a replica starts, with both hashes."""
    weights = _write_checkpoint(tmp_path, weights_sha256="0" * 64)
    found = sha256_hex(Path(weights).read_bytes())
    with pytest.raises(SettingError, match=f"sha256 {found}, but its record says {'0' * 64}"):
        check_weights(_STORAGE, _describe(weights))


def test_a_missing_record_is_a_setting_error(tmp_path: Path) -> None:
    """Weights without a record are refused, with the name of the record."""
    weights = _write_checkpoint(tmp_path)
    (tmp_path / "model.json").unlink()
    with pytest.raises(
        SettingError,
        match=r"weights=.*/model\.safetensors' and the record.*/model\.json does not exist",
    ):
        _describe(weights)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_classes": 4}, "num_classes=4, but the checkpoint .* has 3 classes"),
        ({"weights_sha256": "0" * 64}, f"weights_sha256={'0' * 64}, but the checkpoint .* has "),
    ],
)
def test_another_checkpoint_than_expected_is_refused(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """A checkpoint that is not what the settings expect is refused, with both values."""
    with pytest.raises(SettingError, match=message):
        _describe(_write_checkpoint(tmp_path), **fields)


def test_a_malformed_record_is_a_setting_error(tmp_path: Path) -> None:
    """A record that is none is refused, with the setting that named it."""
    weights = _write_checkpoint(tmp_path)
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(SettingError, match=r"weights='.*': no valid checkpoint record"):
        _describe(weights)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("model.pth", "fcn import-weights --source model.pth"),
        ("model.json", r"must end in \.safetensors"),
        ("s3://bucket/model", r"must end in \.safetensors"),
    ],
)
def test_weights_of_another_kind_are_refused(weights: str, message: str) -> None:
    """Only .safetensors files, which run no code, are taken."""
    with pytest.raises(SettingError, match=message):
        _describe(weights)


def test_random_weights_take_their_classes_from_a_file(tmp_path: Path) -> None:
    """An untrained network has the classes of the file, or numbered ones."""
    path = tmp_path / "classes.json"
    path.write_text('{"classes": [{"id": 0, "name": "sky", "color": [1, 2, 3]}]}')
    assert _describe("random:5", classes=str(path)).checkpoint.classes == (
        ClassLabel("sky", (1, 2, 3)),
    )
    assert _describe("random:5", num_classes=3).checkpoint.classes == numbered_classes(3)
    assert _describe("random:5").checkpoint.num_classes == 21
    assert _describe("random:5", width=32).checkpoint.width == 32


@pytest.mark.parametrize(
    ("content", "fields", "message"),
    [
        (None, {}, r"classes: .*classes\.json does not exist"),
        ("{}", {}, "no valid classes file"),
        (
            '{"classes": [{"id": 0, "name": "a", "color": [0, 0, 0]}]}',
            {"num_classes": 2},
            "has 1 cl",
        ),
    ],
)
def test_a_bad_classes_file_is_a_setting_error(
    content: str | None, fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """A classes file that is missing, malformed or of another number is refused."""
    path = tmp_path / "classes.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingError, match=message):
        _describe("random:5", classes=str(path), **fields)


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without any compiler `compiled` is refused with the remedy; with one, or without it, not."""
    plain = Network(_CHECKPOINT, None, "fp32")
    compiled = dataclasses.replace(plain, compiled=True)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("CXX", "my-own-compiler")
    check_compiler(plain)
    with pytest.raises(SettingError, match=r"my-own-compiler.*install g\+\+"):
        check_compiler(compiled)
    compiler = tmp_path / "my-own-compiler"
    compiler.touch(mode=0o755)
    check_compiler(compiled)
