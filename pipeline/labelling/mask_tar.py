"""A tar of masks: one object in place of one for each image, which WebDataset reads as it is.

Members have no time and no owner, so that the same masks are the same bytes. WebDataset takes what
stands before a name's first dot for the key of a sample: further dots are percent-encoded, and with
them the percent signs, so that a name can be decoded.
"""

import io
import re
import tarfile
from collections.abc import Mapping
from urllib.parse import unquote

TAR_ENDING = ".tar"
_ENDING = ".png"
_NAME = re.compile(r"shard-(\d{6,})(?:-[1-9]\d*)?\.tar")
# POSIX: a tar ends with two empty blocks; tarfile fills it up to a whole record.
_END_BYTES = 2 * tarfile.BLOCKSIZE
_DAMAGE = (tarfile.TarError, ValueError, EOFError, OSError)


class TornTarError(ValueError):
    """A tar that is not as it was written."""


def tar_uri(masks_folder: str, shard: int, number: int = 0) -> str:
    """Name a tar of a shard.

    Args:
        masks_folder: URI of the run's masks.
        shard: The shard's number.
        number: 0, or how many there are before it: see `put_masks.put_tar`.
    """
    further = f"-{number}" if number else ""
    return f"{masks_folder}/shard-{shard:06d}{further}{TAR_ENDING}"


def is_tar_of(uri: str, masks_folder: str, shard: int) -> bool:
    """Return whether a URI is that of a tar of a shard."""
    folder, _, name = uri.rpartition("/")
    found = _NAME.fullmatch(name)
    return folder == masks_folder and found is not None and int(found[1]) == shard


def pack(masks: Mapping[str, bytes]) -> bytes:
    """Build a tar.

    Args:
        masks: PNG files by `mask_key`, in the order of the members.

    Returns:
        The tar; PAX where a name is longer or of another alphabet than USTAR takes.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for mask_key, png in masks.items():
            member = tarfile.TarInfo(_member_name(mask_key))
            member.size = len(png)
            tar.addfile(member, io.BytesIO(png))
    return buffer.getvalue()


def _member_name(mask_key: str) -> str:
    folder, slash, name = mask_key.replace("%", "%25").rpartition("/")
    return folder + slash + name.removesuffix(_ENDING).replace(".", "%2E") + _ENDING


def spans_of(tar: bytes) -> dict[str, range]:
    """Find where the masks lie in a tar.

    Args:
        tar: From `pack`.

    Returns:
        The bytes of each mask's file, by `mask_key`.

    Raises:
        TornTarError: It is cut off or damaged.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as file:
            members = file.getmembers()
    except _DAMAGE as error:
        raise TornTarError(f"no readable tar: {str(error) or type(error).__name__}") from error
    end = file.offset
    if not members or not all(member.isreg() for member in members):
        raise TornTarError(f"no tar of masks: it has {len(members)} members")
    if len(tar) < end + _END_BYTES or any(tar[end:]):
        raise TornTarError(f"the tar is not whole: its members end at byte {end} of {len(tar)}")
    return {
        unquote(member.name): range(member.offset_data, member.offset_data + member.size)
        for member in members
    }
