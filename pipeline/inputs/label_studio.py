"""Label Studio's tasks ("JSON" in its Export), brought into COCO's form.

A task is {"data": {"image": ADDRESS, ...}, "annotations": [{"result": [...]}], ...}. Of several
annotations of a task that count which is marked as ground truth, else that which was changed last;
cancelled ones do not. Brushes and polygons are drawn; choices, texts and the like have no pixels.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree as ET

from pipeline.errors import InputError
from pipeline.inputs.source import is_image
from pipeline.store.uri import BUCKETS

_log = logging.getLogger(__name__)

CONFIG = "label_config.xml"
_BRUSH, _POLYGON = "brushlabels", "polygonlabels"
# Results whose types end so have a place in the image; the others are choices, texts, and so on.
_WITH_PLACE = "labels"
# Elements of a project's configuration whose labels are drawn.
_DRAWN = ("BrushLabels", "PolygonLabels")
_HEX_COLOUR = re.compile(r"#[0-9a-fA-F]{6}\Z")
# Label Studio puts eight hexadecimal digits before the name of what was uploaded.
_UPLOADED = re.compile(r"/data/upload/.*/[0-9a-f]{8}-([^/]+)\Z")

_Object = Mapping[str, Any]


class _Done(NamedTuple):
    """A task that somebody has done: its data, what counts of it, and (height, width)."""

    data: _Object
    results: Sequence[_Object]
    size: tuple[int, int]


def as_coco(tasks: Sequence[_Object], config: bytes | None, uri: str) -> dict[str, Any]:
    """Bring tasks into COCO's form.

    Args:
        tasks: The list that the file holds.
        config: The configuration of the project, whose labels are the classes in their order;
            None takes those of the annotations, by their names.
        uri: Of the file, for messages.

    Returns:
        `images`, `annotations` and `categories`; a segmentation is a list of polygons, or
        {"size": [height, width], "brush": bytes}.

    Raises:
        InputError: No task has an annotation, or one is of a form that is not read.
        KeyError: As TypeError, ValueError and AttributeError: they are no tasks.
    """
    done = [one for task in tasks if (one := _done(task)) is not None]
    if not done:
        raise InputError(
            f"{uri}: none of {len(tasks)} tasks has an annotation; a task has one when somebody "
            "has submitted it, and Label Studio's Export writes it in its form JSON"
        )
    if len(done) < len(tasks):
        left_out = len(tasks) - len(done)
        _log.info("%d of %d tasks of %s have no annotation", left_out, len(tasks), uri)
    shapes = [
        {"image_id": number, "id": result.get("id"), **_shape(result, task, uri)}
        for number, task in enumerate(done)
        for result in task.results
    ]
    seen = sorted({shape["name"] for shape in shapes})
    colours = _labels(config, uri) if config else dict.fromkeys(seen)
    if lacking := [name for name in seen if name not in colours]:
        raise InputError(f"{uri} has the label {lacking[0]!r}, which {CONFIG} beside it has not")
    ids = {name: number for number, name in enumerate(colours, 1)}
    return {
        "images": [_image(number, task, uri) for number, task in enumerate(done)],
        "annotations": [{**shape, "category_id": ids[shape["name"]]} for shape in shapes],
        "categories": [{"id": ids[name], "name": name, "color": colours[name]} for name in ids],
    }


def _done(task: _Object) -> _Done | None:
    """Take what counts of a task; None where there is nothing, or the image's size is not known."""
    there = [one for one in task.get("annotations") or () if not one.get("was_cancelled")]
    annotation = max(there, key=_weight, default=None)
    if annotation is None:
        return None
    results = [one for one in annotation["result"] if str(one.get("type")).endswith(_WITH_PLACE)]
    predicted = (one for found in task.get("predictions") or () for one in found.get("result", ()))
    for one in (*results, *predicted):
        if "original_width" in one:
            size = int(one["original_height"]), int(one["original_width"])
            return _Done(task["data"], results, size)
    return None


def _weight(annotation: _Object) -> tuple[bool, str]:
    return bool(annotation.get("ground_truth")), str(annotation.get("updated_at") or "")


def _shape(result: _Object, task: _Done, uri: str) -> dict[str, Any]:
    kind, value = result["type"], result["value"]
    if kind not in (_BRUSH, _POLYGON):
        raise InputError(
            f"{uri} has a result of the type {kind}; of Label Studio brushes and polygons are "
            "read, which say what each pixel is"
        )
    if result.get("image_rotation"):
        raise InputError(f"{uri}: the image of result {result.get('id')} is turned in Label Studio")
    height, width = task.size
    if kind == _BRUSH:
        outline: Any = {"size": [height, width], "brush": value["rle"]}
    else:
        # In percent of the image.
        outline = [
            [part for x, y in value["points"] for part in (x * width / 100, y * height / 100)]
        ]
    [name] = value[kind]
    return {"name": str(name), "segmentation": outline}


def _image(number: int, task: _Done, uri: str) -> dict[str, Any]:
    height, width = task.size
    address = _address(task.data, uri)
    own = next((one for one in (task.data.get("uri"), address) if _is_readable(one)), "")
    name = task.data.get("key") or _name_of(address)
    size = {"height": height, "width": width}
    return {"id": number, "file_name": name, "coco_url": own, **size}


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


def _is_readable(address: object) -> bool:
    return isinstance(address, str) and address.startswith((*BUCKETS, "file://"))


def _name_of(address: str) -> str:
    """Name an image by its address: its path, or that which stands for it in Label Studio."""
    if uploaded := _UPLOADED.match(address):
        return uploaded[1]
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    return local[0] if local else unquote(parts.path).lstrip("/")


def _labels(config: bytes, uri: str) -> dict[str, list[int] | None]:
    """Read the labels that are drawn, and their colours where they are plain."""
    try:
        root = ET.fromstring(config)  # noqa: S314 - Expat bounds what entities grow to since 2.4.1
    except ET.ParseError as error:
        raise InputError(f"{CONFIG} beside {uri} is no XML: {error}") from error
    labels = [one for kind in _DRAWN for drawn in root.iter(kind) for one in drawn.iter("Label")]
    return {one.get("value", ""): _colour(one.get("background", "")) for one in labels}


def _colour(text: str) -> list[int] | None:
    return list(bytes.fromhex(text[1:])) if _HEX_COLOUR.match(text) else None
