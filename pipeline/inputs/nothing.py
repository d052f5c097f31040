"""Inputs that hold nothing to label: what a person named instead, and what to do about it."""

from collections.abc import Iterable
from typing import NamedTuple

from pipeline.errors import InputError, StoreError
from pipeline.images.formats import sniff
from pipeline.inputs.tars import UNPACK
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage
from pipeline.wording import count

HEIC_ENDINGS = r"(?i)\.(heic|heif|hif|heics|heifs)$"
# So many files of these names are looked into.
LOOKED_INTO = 3
_MAX_BYTES = 64 << 20
# Where a file lies, and its version.
Place = tuple[Extent, str | None]


class Ignored(NamedTuple):
    """Files of an input that are no images by their names.

    Attributes:
        number: All of them.
        num_masks: Of these, masks that `label` has written.
        num_tars: Of these, tars that were not opened.
        num_tables: Of these, Parquet files that were not opened.
        num_packed_tars: Of these, compressed tars.
        num_empty_tables: Beside them, Parquet files that were opened and have no rows.
    """

    number: int
    num_masks: int
    num_tars: int
    num_tables: int
    num_packed_tars: int
    num_empty_tables: int


def no_images(input_uri: str, ignored: Ignored) -> InputError:
    """Build the error for an input without images.

    Args:
        input_uri: The setting.
        ignored: What it holds.
    """
    return InputError(f"input={input_uri!r} holds no images{_instead(ignored)}")


def _instead(ignored: Ignored) -> str:
    if ignored.num_masks:
        return (
            f" but masks that `label` has written ({ignored.num_masks}); name the folder of the "
            "photographs"
        )
    for form, number, kind in (
        ("tar", ignored.num_tars, "tars"),
        ("parquet", ignored.num_tables, "Parquet files"),
    ):
        if number:
            return (
                f" ({ignored.number} other files, {number} of them {kind}); input_form={form} "
                f"labels the images in {kind}"
            )
    if ignored.num_empty_tables:
        return f" but {count(ignored.num_empty_tables, 'Parquet file')} without rows"
    if ignored.num_packed_tars:
        return f" but {ignored.num_packed_tars} compressed tars: {UNPACK}"
    return (
        f" ({ignored.number} other files). Is the path right? A folder's images are told by their "
        "endings; a manifest names any object"
    )


def only_heic(input_uri: str, number: int) -> InputError:
    """Build the error for an input that holds nothing but HEIC.

    Args:
        input_uri: The setting.
        number: Its files.
    """
    return InputError(
        f"input={input_uri!r} holds nothing but HEIC ({number} files), which is not read here; "
        "make JPEGs of them first, as in `mogrify -format jpg *.heic`, and name their folder"
    )


def all_heic(storage: Storage, some: Iterable[Place]) -> bool:
    """Look into files that are named as HEIC: telephones write JPEGs with that ending, too.

    Args:
        storage: As it reads the input.
        some: The files.
    """
    return all(_is_heic(storage, *one) for one in some)


def _is_heic(storage: Storage, place: Extent, version: str | None) -> bool:
    try:
        return sniff(storage.read_version_of(place, version, _MAX_BYTES)) == "HEIC"
    except StoreError:
        # Whatever is wrong with it, its row will say so.
        return False
