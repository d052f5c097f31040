"""What is kept of tars: which images lie in them, so that another night reads the new ones only.

Derived, and never the truth: what is missing, can't be read or is of another version of the tar is
found in the tar again, and takes its place: a tar that changes each night is kept once. Its images
are read on condition of its version.
"""

import io
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import StoreError
from pipeline.inputs.tars import Member
from pipeline.store.entry import Entry
from pipeline.store.in_flight import answers_of
from pipeline.store.parquet import DAMAGE, read_parquet
from pipeline.store.storage import Storage, sha256_hex

_log = logging.getLogger(__name__)

# Of a smaller tar the headers are read by as few requests.
WORTH_BYTES = 4 << 20
# Of a tar with more images nothing is kept: they would lie in memory at once.
MOST_IMAGES = 50_000
_IN_FLIGHT = 16
_PREFIX = "tar-"
_NUM_OTHERS = b"num_others"
_VERSION = b"version"
_SCHEMA = pa.schema([("name", pa.string()), ("offset", pa.int64()), ("num_bytes", pa.int64())])


@dataclass(frozen=True)
class Kept:
    """What lies in a whole tar.

    Attributes:
        images: Its images, in its order.
        num_others: Its other members.
    """

    images: Sequence[Member]
    num_others: int


class KeptTars:
    """Finds what an earlier run has kept, and notes what is to be kept of this one."""

    def __init__(self, storage: Storage, folder: str, scratch: str) -> None:
        """Begin.

        Args:
            storage: The storage of the output.
            folder: URI of the folder that holds what is kept.
            scratch: Path of a temporary folder for what is new.
        """
        self._storage = storage
        self._folder = folder
        self._scratch = scratch

    def find(self, tar: Entry) -> Kept | None:
        """Return what is kept of a tar of this version, if there is something.

        Args:
            tar: The tar as it was listed.

        Raises:
            StoreError: The output does not answer.
        """
        if tar.num_bytes < WORTH_BYTES:
            return None
        data = self._find(f"{self._folder}/{_name(tar)}")
        try:
            return None if data is None else _unpacked(read_parquet(data), tar.version)
        except (*DAMAGE, KeyError) as error:
            _log.warning("what is kept of %s can't be read, so the tar is: %s", tar.uri, error)
            return None

    def note(self, tar: Entry, kept: Kept) -> None:
        """Note what a tar holds, in the temporary folder.

        Args:
            tar: A tar that was read to its end.
            kept: What lies in it.
        """
        if tar.num_bytes < WORTH_BYTES:
            return
        path = f"{self._scratch}/{_name(tar)}"
        try:
            with open(path, "wb") as file:
                file.write(_packed(kept, tar.version))
        except DAMAGE as error:
            # No room, or a name that is no UTF-8: it is not worth an end of the planning.
            _log.info("what lies in %s is not kept: %s", tar.uri, error)
            os.unlink(path)

    def write(self) -> None:
        """Keep what was noted; the work is done without it."""
        names = [name for name in os.listdir(self._scratch) if name.startswith(_PREFIX)]
        try:
            for _ in answers_of(self._put, names, _IN_FLIGHT):
                pass
        except StoreError as error:
            _log.warning("what lies in tars could not be kept: %s", error)

    def _find(self, uri: str) -> bytes | None:
        try:
            return self._storage.find(uri)
        except StoreError as error:
            # As a bucket says of what is not there to who may not list it.
            if error.refused:
                return None
            raise

    def _put(self, name: str) -> None:
        with open(f"{self._scratch}/{name}", "rb") as file:
            self._storage.write(f"{self._folder}/{name}", file.read())


def _name(tar: Entry) -> str:
    return f"{_PREFIX}{sha256_hex(tar.uri.encode())[:32]}.parquet"


def _packed(kept: Kept, version: str) -> bytes:
    rows = [
        {"name": one.name, "offset": one.offset, "num_bytes": one.num_bytes} for one in kept.images
    ]
    said = {_NUM_OTHERS: str(kept.num_others), _VERSION: version}
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, _SCHEMA.with_metadata(said)), buffer)
    return buffer.getvalue()


def _unpacked(table: pa.Table, version: str) -> Kept | None:
    said = table.schema.metadata
    if said[_VERSION].decode() != version:
        return None
    images = [
        Member(row["name"], row["offset"], row["num_bytes"], is_whole=True)
        for row in table.to_pylist()
    ]
    return Kept(images, int(said[_NUM_OTHERS]))
