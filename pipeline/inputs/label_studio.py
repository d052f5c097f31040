"""Label Studio's tasks ("JSON" in its Export), brought into COCO's form.

A task is {"data": {"image": ADDRESS, ...}, "annotations": [{"result": [...]}], ...}. Of several
annotations of a task that counts which is marked as ground truth, else that which was changed last;
cancelled ones do not. Brushes, polygons, rectangles and ellipses are drawn; choices, texts and the
like have no pixels.
"""

import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree as ET

from pipeline.errors import InputError
from pipeline.inputs.source import is_image
from pipeline.store.uri import BUCKETS

_log = logging.getLogger(__name__)

CONFIG = "label_config.xml"
# What a result holds says how it is drawn, whatever its type is called.
_BRUSH, _POLYGON, _RECTANGLE, _ELLIPSE = "rle", "points", "width", "radiusX"
# Results whose types end so have a place in the image; the others are choices, texts, and so on.
_WITH_PLACE = "labels"
# Clicks on the way to a brush.
_CLICKS = "keypointlabels"
# Types of results that are a place alone; their label is a result of its own.
_SHAPES = ("brush", "polygon", "rectangle", "ellipse")
# Elements of a project's configuration whose labels are drawn.
_DRAWN = ("BrushLabels", "PolygonLabels", "RectangleLabels", "EllipseLabels", "Labels")
# Of a polygon that stands for an ellipse: with a radius of 1,000 pixels it is one off at most.
_CORNERS = 72
_HEX_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\Z")
# Label Studio puts eight hexadecimal digits before the name of what was uploaded.
_UPLOADED = re.compile(r"/data/upload/.*/[0-9a-f]{8}-([^/]+)\Z")
_LOCAL_FILES = "/data/local-files/"

_Object = Mapping[str, Any]


class _Done(NamedTuple):
    """A task that somebody has done: its data, what is drawn of it, and (height, width)."""

    id: Any
    data: _Object
    results: Sequence[_Object]
    size: tuple[int, int]


@dataclass
class _LeftOut:
    """What does not count, for the log."""

    tasks: int = 0
    without_size: int = 0
    without_label: int = 0
    empty: int = 0

    def say(self, uri: str) -> None:
        if self.tasks:
            _log.info("%d tasks of %s have no annotation and are left out", self.tasks, uri)
        if self.without_size:
            _log.warning(
                "%d tasks of %s were submitted without a region, so that their size is not known, "
                "and are left out",
                self.without_size,
                uri,
            )
        if self.without_label:
            _log.warning(
                "%d regions and clicks of %s are no shape with a label and are left out",
                self.without_label,
                uri,
            )
        if self.empty:
            _log.warning(
                "%d tasks of %s were submitted with nothing drawn: where the labels have no "
                "`background`, their pixels are of no class (255)",
                self.empty,
                uri,
            )


def as_coco(tasks: Sequence[_Object], config: bytes | None, uri: str) -> dict[str, Any]:
    """Bring tasks into COCO's form: those that somebody has submitted.

    Args:
        tasks: The list that the file holds.
        config: The configuration of the project, whose labels are the classes in their order;
            None takes those of the annotations, by their names.
        uri: Of the file, for messages.

    Returns:
        `images`, `annotations` and `categories`; a segmentation is a list of polygons, or
        {"size": [height, width], "brush": bytes}.

    Raises:
        InputError: An annotation is of a form that is not read.
        KeyError: As TypeError, ValueError and AttributeError: they are no tasks.
    """
    left_out = _LeftOut()
    done = [one for task in tasks if (one := _done(task, left_out)) is not None]
    left_out.say(uri)
    configured, aliases = _labels(config, uri) if config else ({}, {})
    shapes = [
        {"image_id": number, "id": result.get("id"), **_shape(result, task, uri)}
        for number, task in enumerate(done)
        for result in task.results
    ]
    for shape in shapes:
        shape["name"] = aliases.get(shape["name"], shape["name"])
    seen = sorted({shape["name"] for shape in shapes})
    colours = configured or dict.fromkeys(seen)
    if lacking := [name for name in seen if name not in colours]:
        raise InputError(f"{uri} has the label {lacking[0]!r}, which {CONFIG} beside it has not")
    ids = {name: number for number, name in enumerate(colours, 1)}
    images = [_image(number, task, uri) for number, task in enumerate(done)]
    [(most, times)] = Counter(one["file_name"] for one in images).most_common(1) or [("", 0)]
    if times > 1:
        raise InputError(f"{uri}: {times} tasks with annotations are of {most}; keep one of them")
    return {
        "images": images,
        "annotations": [{**shape, "category_id": ids[shape["name"]]} for shape in shapes],
        "categories": [{"id": ids[name], "name": name, "color": colours[name]} for name in ids],
    }


def _done(task: _Object, left_out: _LeftOut) -> _Done | None:
    """Take what counts of a task; None where there is nothing, or the image's size is not known."""
    there = [one for one in task.get("annotations") or () if not one.get("was_cancelled")]
    annotation = max(there, key=_weight, default=None)
    if annotation is None:
        left_out.tasks += 1
        return None
    sized = (one for one in _results(task, annotation) if one.get("original_width"))
    first = next(sized, None)
    if first is None:
        left_out.without_size += 1
        return None
    size = int(first["original_height"]), int(first["original_width"])
    results = list(_drawn(annotation["result"] or (), left_out))
    left_out.empty += not results
    return _Done(task.get("id"), task["data"], results, size)


def _weight(annotation: _Object) -> tuple[bool, str]:
    return bool(annotation.get("ground_truth")), str(annotation.get("updated_at") or "")


def _results(task: _Object, annotation: _Object) -> Iterator[_Object]:
    """Return what may say how large the image is, what counts first."""
    for found in (annotation, *task["annotations"], *(task.get("predictions") or ())):
        # A snapshot names predictions by their numbers.
        if isinstance(found, Mapping):
            yield from found.get("result") or ()


def _drawn(results: Sequence[_Object], left_out: _LeftOut) -> Iterator[_Object]:
    """Return the results with a label and a place; what has one of them alone is counted."""
    labelled = {one.get("id") for one in results if str(one["type"]).endswith(_WITH_PLACE)}
    for one in results:
        kind = str(one["type"])
        if kind.endswith(_WITH_PLACE) and kind != _CLICKS:
            yield one
        elif kind == _CLICKS or (kind in _SHAPES and one.get("id") not in labelled):
            left_out.without_label += 1


def _shape(result: _Object, task: _Done, uri: str) -> dict[str, Any]:
    kind, value = str(result["type"]), result["value"]
    what = f"{uri}: result {result.get('id')} of task {task.id}"
    names: Sequence[str] = value.get(kind) or value.get("labels") or ()
    if len(names) != 1:
        raise InputError(f"{what} has the labels {', '.join(names) or 'none'}; a region is of one")
    if result.get("image_rotation"):
        raise InputError(f"{what}: its image is turned in Label Studio")
    if len({(one.get("to_name"), one.get("item_index")) for one in task.results}) > 1:
        raise InputError(f"{what}: the task has regions of several images; one task is one image")
    return {"name": str(names[0]), "segmentation": _outline(value, task.size, f"{what} is {kind}")}


def _outline(value: _Object, size: tuple[int, int], what: str) -> Any:
    height, width = size
    if _BRUSH in value:
        return {"size": [height, width], "brush": value[_BRUSH]}
    x_unit, y_unit = width / 100, height / 100
    if _POLYGON in value:
        corners = [(x * x_unit, y * y_unit) for x, y in value[_POLYGON]]
    elif _RECTANGLE in value or _ELLIPSE in value:
        corners = _turned(value, x_unit, y_unit)
    else:
        raise InputError(
            f"{what}; of Label Studio brushes, polygons, rectangles and ellipses are read"
        )
    return [[part for corner in corners for part in corner]]


def _turned(value: _Object, x_unit: float, y_unit: float) -> list[tuple[float, float]]:
    """Place the corners of a rectangle or an ellipse, in pixels.

    Label Studio turns them clockwise, by degrees: a rectangle around its upper left corner, where
    its x and y are, an ellipse around its centre. Lengths along and across are percentages of the
    image's width and height, whatever the turn.
    """
    angle = math.radians(value.get("rotation") or 0)
    cosine, sine = math.cos(angle), math.sin(angle)
    return [
        (
            value["x"] * x_unit + along * x_unit * cosine - across * y_unit * sine,
            value["y"] * y_unit + along * x_unit * sine + across * y_unit * cosine,
        )
        for along, across in _around(value)
    ]


def _around(value: _Object) -> list[tuple[float, float]]:
    """Return the corners from x and y, in percent, before they are turned."""
    if _RECTANGLE in value:
        width, height = value["width"], value["height"]
        return [(0, 0), (width, 0), (width, height), (0, height)]
    steps = (2 * math.pi * step / _CORNERS for step in range(_CORNERS))
    return [(value["radiusX"] * math.cos(one), value["radiusY"] * math.sin(one)) for one in steps]


def _image(number: int, task: _Done, uri: str) -> dict[str, Any]:
    """Name an image by its address, where that can be read, else by what it is called."""
    height, width = task.size
    ours = task.data if "image_id" in task.data else {}  # as our export writes them
    address = ours.get("uri") or _address(task.data, uri)
    readable = address.startswith((*BUCKETS, "file://"))
    name = address if readable else ours.get("key") or _name_of(address)
    size = {"height": height, "width": width}
    return {"id": number, "file_name": name, "coco_url": address if readable else "", **size}


def _address(data: _Object, uri: str) -> str:
    """Find the image among the data of a task: `image`, else the only address of one."""
    if isinstance(data.get("image"), str):
        return str(data["image"])
    found = [one for one in data.values() if isinstance(one, str) and is_image(_name_of(one))]
    if len(found) != 1:
        raise InputError(
            f"{uri}: data of a task has {', '.join(data)}, of which none, or more than one, is the "
            "address of an image; call it `image`"
        )
    return found[0]


def _name_of(address: str) -> str:
    """Name an image by its address: its path, or that which stands for it in Label Studio."""
    parts = urlsplit(address)
    path = unquote(parts.path)
    if uploaded := _UPLOADED.search(path):
        return uploaded[1]
    local = parse_qs(parts.query).get("d") if path.endswith(_LOCAL_FILES) else None
    return local[0] if local else path.lstrip("/")


def _labels(config: bytes, uri: str) -> tuple[dict[str, list[int] | None], dict[str, str]]:
    """Read the labels that are drawn: their colours where they are plain, and by their aliases."""
    try:
        root = ET.fromstring(config)  # noqa: S314 - Expat bounds what entities grow to since 2.4.1
    except ET.ParseError as error:
        raise InputError(f"{CONFIG} beside {uri} is no XML: {error}") from error
    labels = [one for kind in _DRAWN for drawn in root.iter(kind) for one in drawn.iter("Label")]
    colours = {one.get("value", ""): _colour(one.get("background", "")) for one in labels}
    return colours, {one.get("alias", ""): one.get("value", "") for one in labels}


def _colour(text: str) -> list[int] | None:
    return list(bytes.fromhex(text[1:])) if _HEX_COLOUR.match(text) else None
