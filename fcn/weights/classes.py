"""Classes: a file of them, numbered ones, and those of well-known data sets; without torch."""

import json
from dataclasses import dataclass
from typing import Any

from fcn.weights import CheckpointError

MAX_CLASSES = 255
# Of a classes file.
_FORM = 'it must hold {"classes": [{"id": 0, "name": "sky", "color": [128, 128, 128]}, ...]}'


@dataclass(frozen=True)
class ClassLabel:
    """One class: its name and its colour in the palette of the masks (RGB, 0 to 255)."""

    name: str
    color: tuple[int, int, int]


def parse_classes(text: str | bytes) -> tuple[ClassLabel, ...]:
    """Read a classes file: `{"classes": [{"id": 0, "name": "sky", "color": [128, 128, 128]}]}`.

    The record of a checkpoint, and that of a run of `label`, are classes files, too.

    Raises:
        CheckpointError: It has another form, or the ids are not 0, 1, 2, ... in order.
    """
    try:
        entries = _entries(json.loads(text))
        labels = tuple(_entry(place, entry) for place, entry in enumerate(entries))
    except CheckpointError:
        raise
    except KeyError as error:
        raise CheckpointError(f"no valid classes file: it lacks {error}; {_FORM}") from error
    except ValueError as error:
        raise CheckpointError(f"no valid classes file: no JSON: {error}; {_FORM}") from error
    check_labels(labels)
    return labels


@dataclass(frozen=True)
class TruthValues:
    """What stands for classes in ground truth, where a classes file says more than one for each.

    Attributes:
        ids: Class index by value; values that are not listed have no class. Empty: none is said.
        colors: Class index by colour, further ones beside those of the classes; `None` for
            colours that have no class.
    """

    ids: dict[int, int]
    colors: dict[tuple[int, int, int], int | None]


def parse_truth_values(text: str | bytes) -> TruthValues:
    """Read what a valid classes file says of ground truth: `ids` and `colors` of its classes.

    A class may have `"ids": [7, 8]`, values that are read as it, and `"colors": [[0, 0, 9]]`,
    further colours; `"ignore": {"colors": [...]}` beside `classes` lists colours without a class,
    and may list ids, which have none anyway where classes have theirs.

    Raises:
        CheckpointError: They have another form, or stand for two classes.
    """
    found = json.loads(text)
    ids: dict[int, int | None] = {}
    colors: dict[tuple[int, int, int], int | None] = {}
    try:
        for index, entry in enumerate(_entries(found)):
            _add_values(ids, colors, entry, index)
        _add_values(ids, colors, found.get("ignore", {}), None)
    except (TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"no valid classes file: {error}; ids are [7, 8] and colors [[0, 0, 9]], also in "
            '"ignore": {"colors": ...}'
        ) from error
    if wrong := [value for value in ids if not 0 <= value <= 255]:
        raise CheckpointError(f"ids are 0 to 255, and there is {wrong[0]}")
    of_classes = {value: index for value, index in ids.items() if index is not None}
    if ids and not of_classes:
        raise CheckpointError(
            "ignore lists ids, and no class does: give each class its ids; others have no class"
        )
    return TruthValues(of_classes, colors)


def _add_values(
    ids: dict[int, int | None],
    colors: dict[tuple[int, int, int], int | None],
    entry: dict[str, Any],
    index: int | None,
) -> None:
    _add(ids, [int(value) for value in _listed(entry, "ids")], index)
    _add(colors, [_color(one) for one in _listed(entry, "colors")], index)


def _listed(entry: dict[str, Any], name: str) -> list[Any]:
    values = entry.get(name, [])
    # A text would be taken character by character.
    if not isinstance(values, list):
        raise TypeError(f"{name} is {values!r}"[:100])
    return values


def _color(value: Any) -> tuple[int, int, int]:
    red, green, blue = (int(one) for one in value)
    if not all(0 <= one <= 255 for one in (red, green, blue)):
        raise ValueError(f"a colour is three values from 0 to 255, not {value}")
    return red, green, blue


def _add(table: dict[Any, Any], values: list[Any], index: int | None) -> None:
    for value in values:
        if table.setdefault(value, index) != index:
            raise CheckpointError(
                f"{value} stands for two classes, or for one and none, in the classes file"
            )


def _entries(found: Any) -> list[dict[str, Any]]:
    entries = _list_of(found) if isinstance(found, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise CheckpointError(f"no valid classes file: {_FORM}")
    return entries


def _list_of(found: dict[str, Any]) -> Any:
    """Return the list of classes, also of the records that are classes files."""
    network = found.get("network")
    if isinstance(network, dict):  # of a run
        return network["classes"]
    entries = found["classes"]
    if isinstance(network, str) and isinstance(entries, list):  # of a checkpoint: in order
        return [{"id": place} | entry for place, entry in enumerate(entries)]
    return entries


def _entry(place: int, entry: dict[str, Any]) -> ClassLabel:
    try:
        number, label = int(entry["id"]), read_label(entry)
    except CheckpointError:
        raise
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"no valid classes file: entry {place} is {str(entry)[:100]}; {_FORM}"
        ) from error
    if number != place:
        raise CheckpointError(
            f"class ids must be 0, 1, 2, ... in order: {label.name!r} has id {number}, and its "
            f"place is that of {place}"
        )
    return label


def numbered_classes(num_classes: int) -> tuple[ClassLabel, ...]:
    """Name classes `class_0`, `class_1`, ... with the colours of the PASCAL VOC palette."""
    return tuple(ClassLabel(f"class_{index}", voc_color(index)) for index in range(num_classes))


def voc_color(index: int) -> tuple[int, int, int]:
    """Colour of a class index in the PASCAL VOC palette.

    The bits of the index are dealt to red, green and blue in turn, from the highest bit of the
    colour down (VOC development kit, VOCcode/VOClabelcolormap.m).
    """
    red = green = blue = 0
    for position in range(8):
        red |= (index >> (3 * position) & 1) << (7 - position)
        green |= (index >> (3 * position + 1) & 1) << (7 - position)
        blue |= (index >> (3 * position + 2) & 1) << (7 - position)
    return (red, green, blue)


def check_labels(labels: tuple[ClassLabel, ...]) -> None:
    """Refuse classes that no mask can hold. Raises CheckpointError."""
    if not 1 <= len(labels) <= MAX_CLASSES:
        raise CheckpointError(f"{len(labels)} classes; a mask of 8 bits holds 1 to {MAX_CLASSES}")
    names = [label.name for label in labels]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CheckpointError(f"class names appear twice: {', '.join(twice)}")


def read_label(entry: dict[str, Any]) -> ClassLabel:
    """Read one class of a record or a classes file.

    Raises:
        CheckpointError: Its colour is none.
        KeyError: It lacks its name or its colour.
    """
    colour = tuple(int(value) for value in entry["color"])
    if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
        raise CheckpointError(f"class {entry['name']!r}: a colour is three values from 0 to 255")
    return ClassLabel(str(entry["name"]), colour)


_VOC_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)

# PASCAL VOC 2012, in order of the class index.
VOC_CLASSES = tuple(ClassLabel(name, voc_color(index)) for index, name in enumerate(_VOC_NAMES))

# Cityscapes (cityscapesScripts, helpers/labels.py): name, id in *_labelIds.png, colour of the 19
# classes that are evaluated, in order of their trainId; all other ids have no class.
_CITYSCAPES = (
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)
CITYSCAPES_CLASSES = tuple(ClassLabel(name, colour) for name, _, colour in _CITYSCAPES)
CITYSCAPES_IDS = {number: index for index, (_, number, _) in enumerate(_CITYSCAPES)}
