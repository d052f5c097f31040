"""The checkpoint record: read back as it was written, refused where it can't be used."""

import dataclasses
import json
from typing import Any

import pytest

from fcn.architectures import ARCHITECTURES
from fcn.models import NETWORKS
from fcn.weights import CheckpointError
from fcn.weights.classes import ClassLabel, numbered_classes, parse_classes, voc_color
from fcn.weights.record import Checkpoint

_CLASSES = (ClassLabel("sky", (128, 128, 128)), ClassLabel("Straße", (1, 2, 255)))
_RECORD = Checkpoint(
    network="fcn_all_skips",
    classes=_CLASSES,
    width=32,
    channel_order="BGR",
    mean=(0.1, 0.2, 0.3),
    std=(1.0, 0.5, 1 / 3),
    ignore_index=255,
    weights_sha256="0" * 64,
    provenance={"data": "CamVid", "metrics": {"mean_iu": 0.5}},
)


def test_a_record_survives_json() -> None:
    """A record is read back as it was written, with every number and every letter."""
    assert Checkpoint.from_json(_RECORD.to_json()) == _RECORD
    assert Checkpoint.from_json(_RECORD.to_json().encode()) == _RECORD


def test_the_least_record_has_the_defaults() -> None:
    """Network and classes suffice; the preprocessing is then that of ImageNet."""
    text = '{"network": "fcn_all_skips", "classes": [{"name": "a", "color": [0, 0, 0]}]}'
    record = Checkpoint.from_json(text)
    assert (record.width, record.in_channels, record.channel_order) == (64, 3, "RGB")
    assert (record.mean, record.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (record.num_classes, record.ignore_index, record.untrained) == (1, 255, False)


def test_random_weights_are_known() -> None:
    """A record of random weights says that they are untrained."""
    assert dataclasses.replace(_RECORD, weights_sha256="random:7").untrained


@pytest.mark.parametrize(
    "text",
    ["", "[]", "7", "null", "{", "{}", b"\xff", '{"network": "fcn_all_skips"}', '{"classes": []}'],
)
def test_what_is_no_record_is_refused(text: str | bytes) -> None:
    """What is no JSON object, or lacks network or classes, is a CheckpointError."""
    with pytest.raises(CheckpointError):
        Checkpoint.from_json(text)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("network", "resnet", "network='resnet' is unknown; there are: fcn32s_vgg16"),
        ("network", None, "network=None is no str"),
        ("width", "64", "width='64' is no int"),
        ("width", 64.0, "width=64.0 is no int"),
        ("width", True, "width=True is no int"),
        ("width", 7, "width=7; it is an even number"),
        ("width", 0, "width=0; it is an even number"),
        ("in_channels", 4, "mean and std need 4 values each"),
        ("channel_order", "GBR", "channel_order='GBR'; it is RGB or BGR"),
        ("mean", [0.1, 0.2], "mean and std need 3 values each"),
        ("mean", [0.1, 0.2, None], "no valid checkpoint record"),
        ("mean", [0.1, 0.2, float("nan")], "finite numbers"),
        ("std", 0.5, "no valid checkpoint record"),
        ("std", [1, 0, 1], "std above 0"),
        ("std", [1, -1, 1], "std above 0"),
        ("std", [1, 1, float("inf")], "finite numbers"),
        ("ignore_index", "255", "ignore_index='255' is no int"),
        ("weights_sha256", None, "weights_sha256=None is no str"),
        ("provenance", [], r"provenance=\[\] is no dict"),
        ("classes", [], "0 classes; a mask of 8 bits holds 1 to 255"),
        ("classes", 3, "no valid checkpoint record"),
        ("classes", [{"color": [0, 0, 0]}], "no valid checkpoint record: it lacks 'name'"),
        ("classes", [{"name": "a"}], "no valid checkpoint record: it lacks"),
        ("classes", [{"name": "a", "color": [0, 0]}], "class 'a': a colour is three values"),
        ("classes", [{"name": "a", "color": [0, 0, 256]}], "from 0 to 255"),
        ("classes", [{"name": "a", "color": [0, 0, -1]}], "from 0 to 255"),
        ("classes", [{"name": "a", "color": "red"}], "no valid checkpoint record"),
        ("classes", [{"name": "a", "color": [0, 0, 0]}] * 2, "class names appear twice: a"),
        ("surplus", 1, "no valid checkpoint record.*surplus"),
    ],
)
def test_a_field_that_can_not_be_used_is_refused(field: str, value: Any, message: str) -> None:
    """A wrong field is a CheckpointError that names the field and what it should be."""
    fields = json.loads(_RECORD.to_json())
    fields[field] = value
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.from_json(json.dumps(fields))


def test_a_mask_holds_255_classes() -> None:
    """255 classes are the most, because 255 itself means no class."""
    assert dataclasses.replace(_RECORD, classes=numbered_classes(255)).num_classes == 255
    with pytest.raises(CheckpointError, match="256 classes; a mask of 8 bits holds 1 to 255"):
        dataclasses.replace(_RECORD, classes=numbered_classes(256))


def test_the_names_of_the_networks_are_known_without_torch() -> None:
    """The names that a record is checked against are those of the networks that can be built."""
    assert tuple(NETWORKS) == tuple(ARCHITECTURES)


# Classes


def test_a_classes_file_is_read() -> None:
    """Names and colours come in the order of the ids, under either spelling of colour."""
    text = json.dumps(
        {
            "dataset": "CamVid",
            "classes": [
                {"id": 0, "name": "sky", "color": [128, 128, 128]},
                {"id": 1, "name": "Straße", "color": [1, 2, 255]},
            ],
        }
    )
    assert parse_classes(text) == _CLASSES


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no valid classes file"),
        ("[]", "no valid classes file"),
        ('["sky", "road"]', 'no valid classes file: it must hold {"classes": '),
        ('{"classes": []}', "0 classes; a mask of 8 bits holds 1 to 255"),
        ("{}", "no valid classes file: it lacks"),
        ('{"classes": 7}', "no valid classes file"),
        ('{"classes": [7]}', "no valid classes file"),
        ('{"classes": [{"name": "a", "color": [0, 0, 0]}]}', "no valid classes file: it lacks"),
        ('{"classes": [{"id": "x", "name": "a", "color": [0, 0, 0]}]}', "no valid classes file"),
        ('{"classes": [{"id": 1, "name": "a", "color": [0, 0, 0]}]}', "'a' has id 1, and its"),
        ('{"classes": [{"id": 0, "name": "a", "color": "red"}]}', "entry 0 is .* must hold"),
        ('{"classes": [{"id": 0, "name": "a", "color": [0, 0, 999]}]}', "from 0 to 255"),
    ],
)
def test_a_malformed_classes_file_is_refused(text: str, message: str) -> None:
    """A file of another form, or with ids that are not 0, 1, 2, ..., is a CheckpointError."""
    with pytest.raises(CheckpointError, match=message):
        parse_classes(text)


def test_colours_are_those_of_pascal_voc() -> None:
    """The first colours, and some later ones, are those of the PASCAL VOC palette."""
    assert [voc_color(index) for index in range(5)] == [
        *((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)),
    ]
    # From the VOC development kit: bicycle is 2, train 19, tv/monitor 20, void 255.
    assert voc_color(19) == (128, 192, 0)
    assert voc_color(20) == (0, 64, 128)
    assert voc_color(255) == (224, 224, 192)


def test_all_colours_differ() -> None:
    """No two of 256 classes share a colour or a name."""
    assert len({voc_color(index) for index in range(256)}) == 256
    assert len({label.name for label in numbered_classes(255)}) == 255
