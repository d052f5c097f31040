"""Inputs that hold nothing to label: what a person named instead, and what to do about it."""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError, StoreError
from pipeline.images.formats import sniff
from pipeline.store.storage import Storage

_HEIC_ENDINGS = r"(?i)\.(heic|heif|hif|heics|heifs)$"
# Names lie: telephones write JPEGs with the ending .heic. So many files are looked into.
_LOOKED_INTO = 3
_MAX_BYTES = 64 << 20


def no_images(input_uri: str, num_ignored: int, num_masks: int) -> InputError:
    """Build the error for an input without images.

    Args:
        input_uri: The setting.
        num_ignored: Files there that are none.
        num_masks: Of these, masks that `label` has written.
    """
    if num_masks:
        return InputError(
            f"input={input_uri!r} holds no images but masks that `label` has written "
            f"({num_masks}); name the folder of the photographs"
        )
    return InputError(
        f"input={input_uri!r} holds no images ({num_ignored} other files). Is the path right? "
        "A folder's images are told by their endings; a manifest names any object"
    )


def refuse_heic(storage: Storage, input_uri: str, listed: pa.Table) -> None:
    """Refuse an input that holds nothing but HEIC, by names and by the first files' content.

    Args:
        storage: As it reads the input.
        input_uri: The setting.
        listed: Its images; the columns uri and etag are read.

    Raises:
        InputError: None of it could be labelled.
    """
    if not pc.all(pc.match_substring_regex(listed["uri"], _HEIC_ENDINGS)).as_py():
        return
    first = listed.slice(0, _LOOKED_INTO).to_pylist()
    if all(_is_heic(storage, row["uri"], row["etag"]) for row in first):
        raise InputError(
            f"input={input_uri!r} holds nothing but HEIC ({listed.num_rows} files), which is not "
            "read here; make JPEGs of them first, as in `mogrify -format jpg *.heic`, and name "
            "their folder"
        )


def _is_heic(storage: Storage, uri: str, version: str | None) -> bool:
    try:
        return sniff(storage.read_version(uri, version, _MAX_BYTES)) == "HEIC"
    except StoreError:
        # Whatever is wrong with it, its row will say so.
        return False
