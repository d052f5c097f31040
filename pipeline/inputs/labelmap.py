"""labelmap.txt: which colour is which class, as CVAT, Datumaro and our own export write it.

A line is label:color_rgb:parts:actions. One of the labels may stand for 255, no class: the export
calls it `ignore`, or by another name where a class is called so.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pipeline.errors import InputError

Colour = tuple[int, int, int]

IGNORE_NAMES = ("ignore", "ignore_255", "no_class_255")
# What these programs add for pixels without a label.
BACKGROUND = "background"


@dataclass(frozen=True)
class LabelMap:
    """The labels of a data set, in order of their lines.

    Attributes:
        uri: Where it is.
        colours: By name.
    """

    uri: str
    colours: Mapping[str, Colour]


def classes_of(labels: Collection[str]) -> list[str]:
    """Return the labels that are classes, in order: all but that of pixels without one.

    Args:
        labels: The data set's labels.
    """
    return [name for name in labels if name != _ignored(labels)]


def class_indices(
    labels: Collection[str], known: Collection[str], uri: str
) -> dict[str, int | None]:
    """Return the class index of each label; None for those without a class.

    Args:
        labels: The data set's labels.
        known: The names of the classes in order of their indices.
        uri: Where the labels stand, for the message.

    Raises:
        InputError: A label is no class.
    """
    places: dict[str, int | None] = {name: index for index, name in enumerate(known)}
    for name in (_ignored(labels), BACKGROUND):
        if name is not None:
            places.setdefault(name, None)
    if lacking := [name for name in labels if name not in places]:
        raise InputError(
            f"{uri} has the label {lacking[0]!r}, which is none of the classes: "
            f"{', '.join(known)}; rename it there, or name other classes"
        )
    return {name: places[name] for name in labels}


def _ignored(labels: Collection[str]) -> str | None:
    return next((name for name in reversed(IGNORE_NAMES) if name in labels), None)


def parse_labelmap(data: bytes, uri: str) -> LabelMap:
    """Read a labelmap.txt.

    Args:
        data: The file.
        uri: Where it is.

    Raises:
        InputError: A line has another form, or two labels have one name or one colour.
    """
    colours: dict[str, Colour] = {}
    for number, line in enumerate(data.decode("utf-8-sig", "replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colour = _label(line, f"{uri}, line {number}")
        if name in colours or colour in colours.values():
            raise InputError(
                f"{uri}, line {number}: {name!r} {colour} has the name or the colour of a label "
                "before it, so that they can't be told apart; give each its own and export again"
            )
        colours[name] = colour
    if not colours:
        raise InputError(f"{uri} names no label")
    return LabelMap(uri, colours)


def _label(line: str, place: str) -> tuple[str, Colour]:
    name, separator, rest = line.partition(":")
    try:
        red, green, blue = (int(value) for value in rest.partition(":")[0].split(","))
    except ValueError as error:
        raise InputError(
            f"{place}: {line!r} is no label; one is NAME:RED,GREEN,BLUE:PARTS:ACTIONS"
        ) from error
    if not separator or not all(0 <= value <= 255 for value in (red, green, blue)):
        raise InputError(f"{place}: {line!r} has no colour of three values from 0 to 255")
    return name.strip(), (red, green, blue)
