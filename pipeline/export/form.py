"""What a format of export is: how it writes one image, and what it writes of many together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.errors import SettingError
from pipeline.export.items import Item
from pipeline.labelling.records import ClassRecord

# A place below the export's folder, and what is written there.
File = tuple[str, bytes]


@dataclass(frozen=True)
class Written:
    """One image as a format writes it.

    Attributes:
        files: What is written for it alone.
        entry: What `collect` is given of it.
    """

    files: Sequence[File]
    entry: Any


class Form(Protocol):
    """A format of export."""

    with_images: bool

    def write(self, item: Item) -> Written:
        """Bring one image into the format; changes nothing here, and may be called elsewhere."""

    def collect(self, entry: Any) -> Iterable[File]:
        """Take up what is said of an image among others, in order; gives files as they get full."""

    def finish(self) -> Iterable[File]:
        """Return what is left to write."""


@dataclass(frozen=True)
class About:
    """What a format is told of an export.

    Attributes:
        classes: In order of their indices.
        fingerprint: Identifies the network and what decides its masks.
        copy_images: Whether images are written, where the format leaves the choice.
        image_url_prefix: What stands before an image's key to make its address.
    """

    classes: Sequence[ClassRecord]
    fingerprint: str
    copy_images: bool = True
    image_url_prefix: str | None = None


def missing_library(name: str, format_name: str) -> SettingError:
    """Build the error for a library of a format that is not installed."""
    return SettingError(
        f"format={format_name} needs {name}, which is not installed: "
        "pip install 'fcn-pipeline[export]'"
    )
