"""COCO: annotations of images as polygons or runs of pixels, which are drawn before they are used.

A file is {"images": [...], "annotations": [...], "categories": [...]}. A folder holds
annotations/instances_SPLIT.json, or instances_00000.json and so on, which are one split. A file
that is a list holds Label Studio's tasks, which are brought into this form.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ErrorCode, InputError, StoreError
from pipeline.inputs.label_studio import CONFIG, as_coco
from pipeline.inputs.labelmap import BACKGROUND, Colour
from pipeline.store.storage import Storage, sha256_hex
from pipeline.store.uri import BUCKETS, normalise_uri

_FILE = re.compile(r"instances_(.+)\.json\Z")


@dataclass(frozen=True)
class Shape:
    """One annotation: `outline` is a list of polygons, or runs of pixels, as COCO has them."""

    id: Any
    category: str
    outline: Any


@dataclass(frozen=True)
class Outlined:
    """One image: its place, its name in the file, and its shapes in order of the file.

    Attributes:
        image_uri: Where it is.
        name: Its file_name.
        source: The image that it is a copy of (coco_url, or path as Label Studio has it), or empty.
        size: (height, width).
        shapes: What is drawn, the later over the earlier.
    """

    image_uri: str
    name: str
    source: str
    size: tuple[int, int]
    shapes: Sequence[Shape]


@dataclass(frozen=True)
class Coco:
    """Annotation files.

    Attributes:
        uri: Where they are.
        sha256: The sha256 of all they say.
        colours: Of the categories by name, in order of their ids; None where none is said.
        images: By split.
    """

    uri: str
    sha256: str
    colours: Mapping[str, Colour | None]
    images: Mapping[str, Sequence[Outlined]]

    @property
    def draws_background(self) -> bool:
        """Return whether `background` is a category that is drawn itself."""
        shapes = (one for some in self.images.values() for image in some for one in image.shapes)
        return any(shape.category == BACKGROUND for shape in shapes)


def coco_files(storage: Storage, folder: str) -> dict[str, list[str]]:
    """Find the annotation files of a folder, by split.

    Args:
        storage: Where it is.
        folder: With annotations/.
    """
    found: dict[str, list[str]] = {}
    for name in storage.children(f"{folder}/annotations"):
        if match := _FILE.match(name):
            split = "default" if match[1].isdigit() else match[1]
            found.setdefault(split, []).append(f"{folder}/annotations/{name}")
    return found


def read_coco(storage: Storage, uri: str, files: Mapping[str, Sequence[str]]) -> Coco:
    """Read annotation files.

    Args:
        storage: Where they are.
        uri: Where they are, for messages.
        files: Their URIs by split.

    Raises:
        InputError: They are no such files, have different categories, or their images are nowhere.
    """
    categories: dict[str, Colour | None] | None = None
    images: dict[str, list[Outlined]] = {}
    digest = ""
    for split, places in files.items():
        found_in: dict[str, str] = {}
        for place in places:
            data = storage.read(place)
            digest = sha256_hex(f"{digest}{split}{sha256_hex(data)}".encode())
            found, outlined = _read(storage, place, data)
            if not outlined:
                continue
            _check_once(outlined, found_in, place)
            if categories not in (None, found):
                raise InputError(f"{place} has other categories than the files before it")
            categories = found
            images.setdefault(split, []).extend(outlined)
    if not images:
        raise InputError(
            f"{uri} names no image; of Label Studio's tasks count those that somebody has "
            "submitted, as its Export writes them in its form JSON"
        )
    return Coco(uri, digest, categories or {}, images)


def _check_once(images: Sequence[Outlined], found_in: dict[str, str], place: str) -> None:
    """Refuse an image that is annotated twice: either may be the right one. Raises InputError."""
    for image in images:
        before = found_in.setdefault(image.image_uri, place)
        if before != place:
            raise InputError(f"{image.image_uri} is in {before} and in {place}; keep one of them")


def _read(
    storage: Storage, uri: str, data: bytes
) -> tuple[dict[str, Colour | None], list[Outlined]]:
    try:
        found = json.loads(data)
        if isinstance(found, list):
            config = storage.find(f"{uri.rpartition('/')[0]}/{CONFIG}")
            found = as_coco(found, config, uri)
        if any("segments_info" in one for one in found["annotations"][:1]):
            raise InputError(f"{uri} is COCO's panoptic form, which is not read; take instances")
        names = {one["id"]: str(one["name"]) for one in found["categories"]}
        colours = {
            names[one["id"]]: _colour(one)
            for one in sorted(found["categories"], key=lambda one: int(one["id"]))
        }
        if len(colours) < len(names):
            raise InputError(f"{uri} has two categories of one name: {', '.join(names.values())}")
        return colours, list(_images(found, names, _Places.of(storage, uri, found["images"])))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{uri} is neither a file of COCO's (images, annotations, categories) nor Label "
            f"Studio's (a list of tasks): {type(error).__name__}: {error}"
        ) from error


def _colour(category: Mapping[str, Any]) -> Colour | None:
    colour = category.get("color")
    if not isinstance(colour, list) or len(colour) != 3:
        return None
    red, green, blue = (int(value) for value in colour)
    return red, green, blue


def _images(
    found: Mapping[str, Any], names: Mapping[Any, str], places: "_Places"
) -> Iterator[Outlined]:
    shapes: dict[Any, list[Shape]] = {one["id"]: [] for one in found["images"]}
    for one in found["annotations"]:
        shape = Shape(one.get("id"), names[one["category_id"]], one.get("segmentation"))
        shapes[one["image_id"]].append(shape)
    for one in found["images"]:
        size = int(one["height"]), int(one["width"])
        if min(size) < 1:
            raise ValueError(f"an image of {size} (height, width)")
        name = str(one["file_name"])
        yield Outlined(places.uri(one), name, _own_url(one), size, shapes[one["id"]])


@dataclass(frozen=True)
class _Places:
    """Where the images of a file are: below a folder, or where coco_url says."""

    folder: str | None

    @staticmethod
    def of(storage: Storage, uri: str, images: Sequence[Mapping[str, Any]]) -> "_Places":
        """Look for the first image that has no whole address as its name."""
        first = next((one for one in images if not _is_whole(str(one["file_name"]))), None)
        if first is None:
            return _Places(None)
        folders = list(_folders(uri))
        for folder in folders:
            if _is_there(storage, f"{folder}/{first['file_name']}"):
                return _Places(folder)
        if all(_own_url(one) for one in images):
            return _Places(None)
        # With truths alone, as corrections, it is told by its name.
        return _Places(folders[0])

    def uri(self, image: Mapping[str, Any]) -> str:
        name = str(image["file_name"])
        if _is_whole(name):
            return normalise_uri(name, "file_name")
        return f"{self.folder}/{name}" if self.folder else _own_url(image)


def _folders(uri: str) -> Iterator[str]:
    """Name where images may be: as CVAT, Datumaro, COCO itself and our export lay them out."""
    folder, _, name = uri.rpartition("/")
    subset = os.path.splitext(name)[0].removeprefix("instances_")
    for above in (folder, folder.rpartition("/")[0]):
        yield from (f"{above}/images", above, f"{above}/images/{subset}", f"{above}/{subset}")


def _is_whole(name: str) -> bool:
    return "://" in name or name.startswith("/")


def _own_url(image: Mapping[str, Any]) -> str:
    urls = (str(image.get(name) or "") for name in ("coco_url", "path"))
    return next((url for url in urls if url.startswith((*BUCKETS, "file://"))), "")


def _is_there(storage: Storage, uri: str) -> bool:
    try:
        return storage.exists(uri)
    except StoreError as error:
        if error.code is ErrorCode.FORBIDDEN:
            return False
        raise
