"""What the user named as input, as a stream of sources: folder, prefix, glob, image, manifest."""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from pipeline.errors import ErrorCode, InputError, Scope, SettingError, StoreError
from pipeline.inputs.inventory import INVENTORY_NAME, read_inventory
from pipeline.inputs.manifests import MANIFEST_ENDINGS, manifest_entries, manifest_uris
from pipeline.store.entry import Entry
from pipeline.store.storage import Storage
from pipeline.store.uri import (
    BUCKETS,
    as_folder,
    has_wildcard,
    local_path,
    normalise_uri,
    other_spellings,
    wildcard_pattern,
)

_log = logging.getLogger(__name__)

# A file with one of these endings is planned, also where the decoder does not read the format:
# then its row says so. Others (checksums, thumbnails' databases, notes) are not images.
IMAGE_ENDINGS = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".tif", ".tiff"),
        *(".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".heics", ".heifs", ".avif", ".avifs"),
        *(".jp2", ".j2k", ".j2c", ".jpf", ".jpx", ".jls", ".jxl", ".jxr", ".ppm", ".pgm", ".pbm"),
        *(".pnm", ".tga", ".ico", ".psd"),
        # Raw photographs, of all makers.
        *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".raf", ".orf"),
        *(".rw2", ".pef", ".srw", ".3fr", ".iiq", ".x3f"),
    )
)
# macOS keeps what other file systems have no place for in a file of this name beside each one.
_APPLE_DOUBLE = "._"

_LOOK_UPS_AT_A_TIME = 10_000
_BEFORE_A_PLACE = re.compile(r"\A\s+(?=s3[an]?://|gc?s://|az://|file:|/)")


@dataclass(frozen=True)
class Source:
    """One image to be planned.

    `key` is its name under the input. `version` and `num_bytes` are None where a manifest names
    an object that can't be looked up; its row will say why. `refusal` is the code of an image
    that its name keeps out.
    """

    key: str
    uri: str
    version: str | None
    num_bytes: int | None
    refusal: ErrorCode | None = None


def is_image(key: str) -> bool:
    """Return whether a name is that of an image, by its ending."""
    name = os.path.basename(key)
    return os.path.splitext(name)[1].lower() in IMAGE_ENDINGS and not name.startswith(_APPLE_DOUBLE)


class Sources:
    """The images of an input; iterate once, then read `num_ignored` and `num_masks`."""

    def __init__(
        self,
        storage: Storage,
        input_uri: str,
        output_uri: str,
        threads: int,
        *,
        trust_manifest: bool = False,
    ) -> None:
        """Find out what kind of input it is, without listing it yet.

        Args:
            storage: Where it is.
            input_uri: What the user named, normalised.
            output_uri: Left out of a listing.
            threads: Look-ups at a time, for manifests.
            trust_manifest: Whether a manifest says versions and sizes, so that nothing is looked
                up.
        """
        self._storage = storage
        self._input = input_uri
        self._output = as_folder(output_uri)
        self._threads = threads
        self._trust_manifest = trust_manifest
        self.num_ignored = self.num_masks = 0

    def __iter__(self) -> Iterator[Source]:
        """List the images, in no order.

        Raises:
            InputError: The input is missing, unreadable, or a manifest without `uri`.
            SettingError: Endpoint or credentials are wrong.
        """
        try:
            yield from self._find()
        except StoreError as error:
            if error.refused and error.scope is Scope.STORE:
                raise SettingError(f"input={self._input!r}: {error.message}") from error
            if error.refused:
                raise InputError(f"input={self._input!r}: {error.message}") from error
            raise

    def _find(self) -> Iterator[Source]:
        entry = self._single()
        if entry is not None and entry.uri.rpartition("/")[2] == INVENTORY_NAME:
            yield from self._images(read_inventory(self._storage, entry.uri), "s3://")
        elif entry is not None and entry.uri.lower().endswith(MANIFEST_ENDINGS):
            yield from self._manifest(entry.uri)
        elif entry is None and (parts := self._manifest_parts()):
            for uri in parts:
                yield from self._manifest(uri)
        elif entry is not None:
            key = entry.uri.rpartition("/")[2]
            if "." in key and not is_image(key):
                raise InputError(
                    f"input={self._input!r} is neither an image by its ending nor a manifest "
                    f"({', '.join(MANIFEST_ENDINGS)})"
                )
            yield Source(key, entry.uri, entry.version, entry.num_bytes)
        elif has_wildcard(self._input) and not self._storage.children(self._input):
            yield from self._glob()
        else:
            yield from self._folder(self._input)

    def _manifest_parts(self) -> list[str]:
        """List the files of a manifest that is a folder, as Spark writes one."""
        if not self._input.lower().endswith(MANIFEST_ENDINGS):
            return []
        names = self._storage.children(self._input)
        return [
            f"{self._input}/{name}" for name in names if name.lower().endswith(MANIFEST_ENDINGS)
        ]

    def _single(self) -> Entry | None:
        """Look the input up as one object; None if it is a folder, or there is no such thing."""
        if self._input.endswith("/"):
            return None
        try:
            entry = self._storage.stat(self._input)
        except StoreError as error:
            if error.code is ErrorCode.NOT_FOUND:
                return None
            raise
        return None if self._marks_a_folder(entry) else entry

    def _marks_a_folder(self, entry: Entry) -> bool:
        """Return whether an object is the empty one that tools lay beside a prefix of its name."""
        named = is_image(entry.uri) or entry.uri.lower().endswith(MANIFEST_ENDINGS)
        if not entry.uri.startswith(BUCKETS) or (named and entry.num_bytes):
            return False
        if next(iter(self._storage.walk(entry.uri)), None) is None:
            return False
        if entry.num_bytes:
            _log.warning(
                "%s is an object and a folder: the object is taken; for the folder write %s/",
                *(entry.uri, entry.uri),
            )
        return not entry.num_bytes

    def _folder(self, folder: str) -> Iterator[Source]:
        yield from self._images(self._storage.walk(folder), as_folder(folder))

    def _images(self, entries: Iterable[Entry], prefix: str) -> Iterator[Source]:
        """Choose what is an image by its name; its key is what follows the prefix."""
        output = self._output_below(prefix)
        for entry in entries:
            # A name that is no UTF-8 can't stand in a table: its row says so, with \xe9 for a byte.
            uri = entry.uri.encode(errors="surrogateescape").decode(errors="backslashreplace")
            key = uri.removeprefix(prefix)
            if output and key.startswith(output):
                continue
            # Masks of this or another output are no photographs.
            is_mask = "/masks/run=" in uri
            if is_mask or not is_image(key):
                self.num_ignored += 1
                self.num_masks += is_mask
                continue
            refusal = ErrorCode.NAME_NOT_UTF8 if uri != entry.uri else None
            yield Source(key, uri, entry.version, entry.num_bytes, refusal)

    def _output_below(self, prefix: str) -> str | None:
        """Return the output's path below a folder, if it lies there, also by way of links."""
        output = self._output
        if output.startswith("file://"):
            output, prefix = (
                as_folder("file://" + os.path.realpath(local_path(uri))) for uri in (output, prefix)
            )
        below = output.startswith(prefix) and output != prefix
        return output.removeprefix(prefix) if below else None

    def _glob(self) -> Iterator[Source]:
        fixed = as_folder(re.split(r"[*?\[]", self._input, maxsplit=1)[0].rpartition("/")[0])
        if fixed in BUCKETS:
            raise InputError(f"input={self._input!r}: a bucket's name can't be a pattern")
        pattern = wildcard_pattern(self._input)
        for source in self._folder(fixed):
            if pattern.match(source.uri):
                yield source

    def _manifest(self, manifest_uri: str) -> Iterator[Source]:
        data = self._storage.read(manifest_uri)
        if self._trust_manifest:
            for text, version, num_bytes in manifest_entries(data, manifest_uri):
                uri = self._normalised(text)
                known = Source(_key_of(uri), uri, version, num_bytes)
                yield self._look_up(text) if version is None else known
            return
        uris = manifest_uris(data, manifest_uri)
        with ThreadPoolExecutor(self._threads) as pool:
            # A pool holds all that it is given, so it is given some at a time.
            while some := list(islice(uris, _LOOK_UPS_AT_A_TIME)):
                yield from pool.map(self._look_up, some)

    def _look_up(self, text: str) -> Source:
        uri = self._normalised(text)
        entry = self._stat_if_there(uri)
        for other in () if entry else other_spellings(uri):
            entry = entry or self._stat_if_there(other)
        if entry is None:
            return Source(_key_of(uri), uri, None, None)
        return Source(_key_of(entry.uri), entry.uri, entry.version, entry.num_bytes)

    def _normalised(self, text: str) -> str:
        try:
            # Spaces before a scheme or a root are no part of a name; all others may be.
            return normalise_uri(_BEFORE_A_PLACE.sub("", text), "uri")
        except SettingError as error:
            raise InputError(f"manifest {self._input}: {error}") from error

    def _stat_if_there(self, uri: str) -> Entry | None:
        """Look an object up; None if there is none of this name, or it may not be read."""
        try:
            return self._storage.stat(uri)
        except StoreError as error:
            if error.refused and error.scope is not Scope.STORE:
                return None
            raise


def _key_of(uri: str) -> str:
    """Name an image of a manifest: all of its place."""
    return uri.partition("://")[2].lstrip("/")
