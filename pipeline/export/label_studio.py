"""Label Studio: tasks whose predictions are the masks, a brush for each class.

Images are not copied: Label Studio loads them from their addresses.
"""

import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from pipeline.errors import SettingError
from pipeline.export.form import About, File, Written
from pipeline.export.items import Item
from pipeline.export.parts import Parts
from pipeline.images.brush import pack
from pipeline.images.masks import IGNORE_INDEX, decode_mask
from pipeline.store.extent import Extent

_log = logging.getLogger(__name__)

_IMAGE, _BRUSH = "image", "tag"
_TASKS_PER_FILE = 1_000
_BYTES_PER_FILE = 64 << 20
# Of images that most browsers do not show.
_NOT_SHOWN = (".tif", ".tiff", ".bigtiff", ".jp2", ".heic", ".heif")


class _Task(NamedTuple):
    """A task, and where its image is: in a browser, and as it was labelled."""

    json: str
    address: str
    uri: str


class LabelStudio:
    """Writes tasks_00000.json and so on, each to be imported, and label_config.xml."""

    with_images = False

    def __init__(self, about: About) -> None:
        """Begin."""
        self._about = about
        self._on_a_disk: str | None = None
        self._not_shown: str | None = None
        self._names = {label.id: label.name for label in about.classes}
        self._parts: Parts[str] = Parts(
            lambda number: f"tasks_{number:05d}.json",
            lambda tasks: ("[" + ",\n".join(tasks) + "]\n").encode(),
            _TASKS_PER_FILE,
            _BYTES_PER_FILE,
        )

    def write(self, item: Item) -> Written:
        """Make a task of an image. Raises SettingError for one in another file."""
        row = item.row
        if not Extent.of_image(row).is_whole:
            raise SettingError(
                f"format=label-studio: {row['uri']} lies in another file, from which Label Studio "
                "loads no image; take the images out of it and label those, or take format=coco or "
                "voc, which copy the images"
            )
        prediction = {
            "model_version": self._about.fingerprint[:16],
            "score": row["mean_confidence"],
            "result": list(self._brushes(item)),
        }
        known = {name: row[name] for name in ("uri", "key", "image_id")}
        address = self._address(item)
        task = {"data": {_IMAGE: address, **known}, "predictions": [prediction]}
        return Written((), _Task(json.dumps(task), address, row["uri"]))

    def collect(self, entry: _Task) -> Iterable[File]:
        """Take up a task."""
        if entry.address.startswith("file:"):
            self._on_a_disk = entry.address
        if entry.uri.lower().endswith(_NOT_SHOWN):
            self._not_shown = entry.uri
        return self._parts.add(entry.json, len(entry.json))

    def finish(self) -> Iterator[File]:
        """Write the last tasks, and the configuration of a project for them."""
        if self._on_a_disk is not None:
            _log.warning(
                "images are named as %s, which a browser does not load; serve them and give their "
                "address as image_url_prefix",
                self._on_a_disk,
            )
        if self._not_shown is not None:
            _log.warning(
                "some images, such as %s, are of formats that browsers do not show, so Label "
                "Studio shows nothing; format=coco and voc copy images so that all readers do",
                self._not_shown,
            )
        yield from self._parts.close()
        labels = "".join(
            f'    <Label value={quoteattr(one.name)} background="#{bytes(one.color).hex()}"/>\n'
            for one in self._about.classes
        )
        yield "label_config.xml", _CONFIG.format(labels=labels).encode()

    def _address(self, item: Item) -> str:
        prefix = self._about.image_url_prefix
        address: str = item.row["uri"] if prefix is None else prefix + quote(item.row["key"])
        return address

    def _brushes(self, item: Item) -> Iterator[dict[str, Any]]:
        height, width = item.size
        mask = decode_mask(item.mask)
        for index in np.unique(mask):
            if index == IGNORE_INDEX:
                continue
            name = self._names[int(index)]
            yield {
                "id": f"class-{index}",
                "type": "brushlabels",
                "from_name": _BRUSH,
                "to_name": _IMAGE,
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {"format": "rle", "rle": pack(mask == index), "brushlabels": [name]},
            }


_CONFIG = f"""<View>
  <Image name="{_IMAGE}" value="${_IMAGE}" zoom="true"/>
  <BrushLabels name="{_BRUSH}" toName="{_IMAGE}">
{{labels}}  </BrushLabels>
</View>
"""
