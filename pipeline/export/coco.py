"""COCO: a list of images and of annotations, one for each class in an image, packed as RLE.

A file holds so many images at most, each file being whole in itself: neither memory nor readers of
JSON would hold a million. A category's id is the class index plus one, since 0 means none in COCO;
pixels of 255 are of no annotation.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from pipeline.errors import SettingError
from pipeline.export.form import About, File, Written, missing_library
from pipeline.export.items import Item
from pipeline.images.masks import IGNORE_INDEX, decode_mask
from pipeline.store.extent import Extent

try:
    from pycocotools import mask as rle
except ImportError as error:
    raise missing_library("pycocotools", "coco") from error

_IMAGES_PER_FILE = 20_000
_BYTES_PER_FILE = 128 << 20


class Coco:
    """Writes images/ and annotations/instances_default.json, or _00000, _00001 and so on."""

    def __init__(self, about: About) -> None:
        """Begin."""
        self.with_images = about.copy_images
        self._about = about
        self._images: list[str] = []
        self._annotations: list[str] = []
        self._num_bytes = self._num_files = 0

    def write(self, item: Item) -> Written:
        """Lay out the image, and pack each class of its mask.

        Raises:
            SettingError: The image is not copied and lies in another file.
        """
        if item.image is None and not Extent.of_image(item.row).is_whole:
            raise SettingError(
                f"copy_images=false: {item.row['uri']} lies in another file, where readers of "
                "COCO find no image; let the images be copied"
            )
        height, width = item.size
        file_name = item.row["uri"] if item.image is None else f"{item.name}.{item.ending}"
        files = [] if item.image is None else [(f"images/{file_name}", item.image)]
        image = {"width": width, "height": height, "file_name": file_name}
        image |= {"coco_url": item.row["uri"], "mean_confidence": item.row["mean_confidence"]}
        return Written(files, (image, list(_annotations(item.mask))))

    def collect(self, entry: tuple[dict[str, Any], list[dict[str, Any]]]) -> Iterator[File]:
        """Number the image and its annotations; a full file is given."""
        image, annotations = entry
        number = len(self._images) + 1
        self._add(self._images, {"id": number, **image})
        for annotation in annotations:
            numbers = {"id": len(self._annotations) + 1, "image_id": number}
            self._add(self._annotations, {**numbers, **annotation})
        if number == _IMAGES_PER_FILE or self._num_bytes >= _BYTES_PER_FILE:
            yield self._file(f"{self._num_files:05d}")

    def finish(self) -> Iterable[File]:
        """Return the last file, or the only one."""
        if not self._num_files:
            return [self._file("default")]
        return [self._file(f"{self._num_files:05d}")] if self._images else []

    def _add(self, to: list[str], fields: dict[str, Any]) -> None:
        to.append(json.dumps(fields))
        self._num_bytes += len(to[-1])

    def _file(self, subset: str) -> File:
        categories = [
            {"id": label.id + 1, "name": label.name, "supercategory": "", "color": label.color}
            for label in self._about.classes
        ]
        info = {"description": f"masks of the network {self._about.fingerprint}"}
        head = json.dumps({"info": info, "licenses": [], "categories": categories})
        images, annotations = ",\n".join(self._images), ",\n".join(self._annotations)
        text = f'{head[:-1]}, "images": [\n{images}\n], "annotations": [\n{annotations}\n]}}\n'
        self._images, self._annotations, self._num_bytes = [], [], 0
        self._num_files += 1
        return f"annotations/instances_{subset}.json", text.encode()


def _annotations(png: bytes) -> Iterator[dict[str, Any]]:
    mask = decode_mask(png)
    for index in np.unique(mask):
        if index == IGNORE_INDEX:
            continue
        packed = rle.encode(np.asfortranarray(mask == index, np.uint8))
        yield {
            "category_id": int(index) + 1,
            "area": int(rle.area(packed)),
            "bbox": [float(number) for number in rle.toBbox(packed)],
            "iscrowd": 0,
            "segmentation": {"size": packed["size"], "counts": packed["counts"].decode()},
        }
