"""What a labelled data set is: samples, by split, and what is known of its classes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.errors import InputError
from pipeline.inputs.coco import Coco
from pipeline.inputs.labelmap import LabelMap
from pipeline.store.extent import Extent

TRAIN, VAL = "train", "val"
# The split of a data set that knows of none, as CVAT and Datumaro call it.
UNDIVIDED = "default"
# How files of a split are called: train-00000-of-00002.parquet, camvid-val-000000.tar.
_SPLIT = re.compile(
    r"(?:^|[-_.])(train|training|val|valid|validation|dev|eval|test|testing)(?:[-_.]|$)",
    re.IGNORECASE,
)
_SPLITS = {"training": TRAIN, "testing": "test"} | dict.fromkeys(
    ("valid", "validation", "dev", "eval"), VAL
)


@dataclass(frozen=True)
class Sample:
    """A labelled image.

    Attributes:
        image_uri: The image; of one in a tar or a Parquet file as `uri_inside` names it.
        mask_uri: Its ground truth, or the tar that holds it; of one in a Parquet file as
            `uri_inside` names it.
        mask_offset: Where in the tar the file begins, in bytes; None without a tar.
        mask_bytes: The size of the file in the tar; None without a tar.
        image_offset: Where in its tar the image begins, in bytes; None without a tar.
        image_bytes: The size of the image in its tar; None without a tar.
        image_copy: Where the image is read instead, since it lies where only reading in order is
            cheap; None where it is read from its place.
    """

    image_uri: str
    mask_uri: str
    mask_offset: int | None = None
    mask_bytes: int | None = None
    image_offset: int | None = None
    image_bytes: int | None = None
    image_copy: str | None = None

    @property
    def image(self) -> Extent:
        """Where the image is read."""
        if self.image_copy is not None:
            return Extent(self.image_copy)
        place = {"image_offset": self.image_offset, "num_bytes": self.image_bytes}
        return Extent.of_image({"uri": self.image_uri, **place})

    @property
    def mask(self) -> Extent:
        """Where its ground truth lies."""
        if self.mask_offset is None:
            return Extent.of_image({"uri": self.mask_uri})
        return Extent(self.mask_uri, self.mask_offset, self.mask_bytes)


def check_divided(splits: Mapping[str, Sequence[Sample]], uri: str) -> None:
    """Refuse files of no split beside those of some: nobody would look at them.

    Args:
        splits: By their names.
        uri: Of the data set, for the message.

    Raises:
        InputError: There are such files.
    """
    if len(splits) > 1 and splits.get(UNDIVIDED):
        others = ", ".join(name for name in splits if name != UNDIVIDED)
        raise InputError(
            f"{uri} has files of the splits {others}, and others whose names tell no split, such "
            f"as that of {splits[UNDIVIDED][0].image_uri}; name them, or their folder, after one"
        )


def split_of(key: str) -> str:
    """Tell the split of a file that holds samples by the name of its folder, or its own.

    Args:
        key: Below the data set.

    Returns:
        `val` also for what others call so; `UNDIVIDED` for other names.
    """
    *folders, last = key.split("/")
    whole = (found for name in reversed(folders) if (found := _SPLIT.fullmatch(name)))
    found = next(whole, None) or _SPLIT.search(last)
    if found:
        name = found[1].lower()
        return _SPLITS.get(name, name)
    return UNDIVIDED


@dataclass(frozen=True)
class Labelled:
    """A data set as it lies there.

    Attributes:
        layout: One of `layouts.LAYOUTS`.
        splits: Its samples by split, in order of the image's URI.
        classes_uri: Its classes.json, or a run's run.json, if it has one.
        raw_ids: Whether its ground truth holds ids that have to be mapped (Cityscapes' labelIds).
        labelmap: What its labelmap.txt says, if it has one.
        coco: What is to be drawn; until then its samples have no truth.
        names: Of images by their URIs, where a file names them: a name, or the URI they are from.
    """

    layout: str
    splits: dict[str, list[Sample]]
    classes_uri: str | None = None
    raw_ids: bool = False
    labelmap: LabelMap | None = None
    coco: Coco | None = None
    names: Mapping[str, str] = field(default_factory=dict)

    def split(self, name: str) -> list[Sample]:
        """Return the samples of a split; all of them where the data set is not divided.

        Raises:
            InputError: There is none of this name.
        """
        return self.named(UNDIVIDED if list(self.splits) == [UNDIVIDED] else name)

    def named(self, name: str) -> list[Sample]:
        """Return the samples of the split of this name. Raises InputError if there is none."""
        if not self.splits.get(name):
            raise InputError(
                f"the data set ({self.layout}) has no split {name!r}; it has "
                f"{', '.join(f'{key} ({len(some)})' for key, some in self.splits.items())}"
            )
        return self.splits[name]
