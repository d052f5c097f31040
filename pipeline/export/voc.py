"""PASCAL VOC, as CVAT ("Segmentation mask 1.1") and Datumaro import it, and `train --data`.

labelmap.txt says which colour is which class (Datumaro's form: label:color_rgb:parts:actions). The
masks are those of `label`, byte for byte, grey ones with a palette: who reads that finds class
indices as VOC's own tools do, who reads colours finds those of labelmap.txt, also for 255.
"""

import json
from collections.abc import Iterable, Iterator, Sequence

from pipeline.errors import SettingError
from pipeline.export.form import About, File, Written
from pipeline.export.items import Item
from pipeline.images.masks import IGNORE_COLOR, coloured, make_palette
from pipeline.labelling.records import ClassRecord

_HEAD = "# label:color_rgb:parts:actions"
_IGNORE = "ignore"


class Voc:
    """Writes JPEGImages/, SegmentationClass/, ImageSets/Segmentation/default.txt, labelmap.txt."""

    def __init__(self, about: About) -> None:
        """Begin.

        Args:
            about: The export.

        Raises:
            SettingError: The classes can't be told apart in this format.
        """
        self.with_images = about.copy_images
        self._classes = about.classes
        self._labelmap = labelmap(about.classes)
        self._palette = make_palette([label.color for label in about.classes])
        self._names: list[str] = []

    def write(self, item: Item) -> Written:
        """Lay out the image and its mask."""
        mask = coloured(item.mask, self._palette)
        files = [(f"SegmentationClass/{item.name}.png", mask)]
        if item.image is not None:
            files.append((f"JPEGImages/{item.name}.{item.ending}", item.image))
        return Written(files, item.name)

    def collect(self, entry: str) -> Iterable[File]:
        """Keep the name for the list."""
        self._names.append(entry)
        return ()

    def finish(self) -> Iterator[File]:
        """Write the list and the classes."""
        lines = "".join(f"{name}\n" for name in self._names)
        yield "ImageSets/Segmentation/default.txt", lines.encode()
        yield "labelmap.txt", self._labelmap.encode()
        yield "classes.json", classes_json(self._classes)


def labelmap(classes: Sequence[ClassRecord]) -> str:
    """Write which colour is which class.

    Args:
        classes: In order of their indices.

    Raises:
        SettingError: Two classes have one colour, one has that of 255, or a name can't stand there.
    """
    names = {label.name for label in classes}
    ignore = next(name for name in (_IGNORE, "ignore_255", "no_class_255") if name not in names)
    pairs = [*((label.name, label.color) for label in classes), (ignore, IGNORE_COLOR)]
    owners: dict[tuple[int, int, int], str] = {}
    for name, colour in pairs:
        # Readers differ in what they take for the end of a line.
        torn = name.splitlines() != [name] or name != name.strip()
        if torn or ":" in name or name.startswith("#"):
            raise SettingError(f"format=voc: a class can't be called {name!r} in labelmap.txt")
        if colour in owners:
            raise SettingError(
                f"format=voc: the classes {owners[colour]!r} and {name!r} have one colour, "
                f"{colour}, and colours are what this format tells classes by; give them others in "
                "the checkpoint's record, or use --format coco"
            )
        owners[colour] = name
    lines = [f"{name}:{','.join(map(str, colour))}::" for colour, name in owners.items()]
    return "\n".join([_HEAD, *lines, ""])


def classes_json(classes: Sequence[ClassRecord]) -> bytes:
    """Write the classes as `train` and `evaluate` read them."""
    found = [{"id": one.id, "name": one.name, "color": list(one.color)} for one in classes]
    return (json.dumps({"classes": found}, indent=1) + "\n").encode()
