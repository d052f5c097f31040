"""Tars as inputs: which files lie in one, and where, found without reading it whole."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, cast

from pipeline.errors import StoreError
from pipeline.inputs.tar_reading import TarReading
from pipeline.store.entry import Entry
from pipeline.store.storage import Storage

TAR = ".tar"
PACKED_TARS = (
    *(".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz", ".tar.zst", ".tzst"),
    *(".tar.lz4", ".tar.lzma", ".tar.z"),
)
UNPACK = (
    "files in one can't be read at an offset; make it a plain .tar first, for example with `gunzip`"
)
# Archives of other kinds, which hold files and are read by nothing here.
ARCHIVES = (".zip", ".7z", ".rar")
# Behind the end of a tar nothing lies but zeros, to the end of a record; so many are looked at.
_LOOKED_AT = 1 << 20


@dataclass(frozen=True, slots=True)  # thousands of each tar are in memory
class Member:
    """A file in a tar.

    Attributes:
        name: As it would be extracted: without a slash or a dot in front.
        offset: Where in the tar its content begins, in bytes.
        num_bytes: Its size.
        is_whole: Whether its content lies there; links have none, sparse files have holes.
    """

    name: str
    offset: int
    num_bytes: int
    is_whole: bool


class DamagedTarError(ValueError):
    """A tar that can't be read to its end; the members before are known."""


def is_tar(name: str) -> bool:
    """Return whether a name is that of a tar that can be opened, by its ending."""
    return name.lower().endswith(TAR)


def is_packed_tar(name: str) -> bool:
    """Return whether a name is that of a compressed tar, by its ending."""
    return name.lower().endswith(PACKED_TARS)


def is_archive(name: str) -> bool:
    """Return whether a name is that of an archive that is no tar, by its ending."""
    return name.lower().endswith(ARCHIVES)


def unpack_archive(uri: str) -> str:
    """Say what to do with an archive that is no tar."""
    return f"is a {uri.rpartition('.')[2].lower()}: unpack it and name the folder"


def read_members(storage: Storage, tar: Entry) -> Iterator[Member]:
    """Read which files lie in a tar, in its order; folders are left out.

    Args:
        storage: Storage that holds the tar.
        tar: The tar as it was listed.

    Raises:
        DamagedTarError: After the members before the damage.
        StoreError: The tar has changed since, or can't be read.
    """
    end = 0
    try:
        file = cast("IO[bytes]", TarReading(storage, tar))
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as opened:
            while (found := opened.next()) is not None:
                # There may be millions of them.
                opened.members.clear()  # type: ignore[attr-defined]  # typeshed has it not
                _check_member(found, opened.offset, end, tar.num_bytes)
                end = opened.offset
                if not found.isdir():
                    yield _member(found)
            end = opened.offset
            _check_end(file, end)
    except StoreError:
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise DamagedTarError(f"at byte {end:,} of {tar.num_bytes:,}: {reason}") from error


def _member(found: tarfile.TarInfo) -> Member:
    parts = (part for part in found.name.split("/") if part not in ("", "."))
    is_whole = found.isreg() and not found.issparse()
    return Member("/".join(parts), found.offset_data, found.size, is_whole)


def _check_member(found: tarfile.TarInfo, next_one: int, before: int, num_bytes: int) -> None:
    """Refuse a header that leads astray. Raises tarfile.ReadError."""
    if next_one <= before:
        raise tarfile.ReadError(f"a header says that {found.name!r} has {found.size:,} bytes")
    if found.isreg() and not found.issparse() and found.offset_data + found.size > num_bytes:
        raise tarfile.ReadError(f"{found.name!r} is cut off")


def _check_end(file: IO[bytes], end: int) -> None:
    """Refuse a tar that does not end where its members do. Raises tarfile.ReadError."""
    file.seek(end)
    first = file.read(tarfile.BLOCKSIZE)
    if len(first) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it is cut off: there is no empty block at the end")
    if any(first):
        raise tarfile.ReadError("there is neither a header nor the end of the tar")
    if any(file.read(_LOOKED_AT)):
        raise tarfile.ReadError("there is data behind its end; join tars with `tar -A`")
