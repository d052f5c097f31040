"""What the user named as input, as a stream of sources: folder, prefix, glob, image, manifest."""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.errors import ErrorCode, InputError, Scope, SettingError, StoreError
from pipeline.inputs.forms import Form, form_of
from pipeline.inputs.inventory import INVENTORY_NAME, read_inventory
from pipeline.inputs.kept_tars import KeptTars
from pipeline.inputs.look_ups import LookUps
from pipeline.inputs.manifests import MANIFEST_ENDINGS, manifest_entries
from pipeline.inputs.nothing import Ignored
from pipeline.inputs.open_tables import OpenTables, is_table
from pipeline.inputs.open_tars import OpenTars
from pipeline.inputs.source import Source, is_image, readable_name
from pipeline.inputs.tars import TAR, UNPACK, is_archive, is_packed_tar, is_tar, unpack_archive
from pipeline.store.entry import Entry
from pipeline.store.object_file import open_object
from pipeline.store.storage import Storage
from pipeline.store.uri import (
    BUCKETS,
    as_folder,
    has_wildcard,
    local_path,
    wildcard_pattern,
)

_log = logging.getLogger(__name__)

# Tables of an output of `label`.
_OF_LABEL = re.compile(r"/(images|class_statistics|runs)/run=")
# What `evaluate` draws in an output.
_OF_EVALUATION = re.compile(r"/evaluations/[^/]+/confusion_matrix\.png\Z")
# What folders of ground truth are called: of PASCAL VOC, of Cityscapes, and of most others.
_MASK_FOLDERS = ("SegmentationClass", "SegmentationObject", "gtFine", "masks", "labels")


@dataclass(frozen=True)
class Reading:
    """How an input is read.

    Attributes:
        trust_manifest: Whether a manifest says versions and sizes, so that nothing is looked up.
        form: Whether tars, or Parquet files, among the files are opened; see `form_of`.
        kept: What earlier runs have kept of tars; None keeps nothing.
        image_column: Of Parquet files, the column of the images; None takes the only one.
    """

    trust_manifest: bool = False
    form: Form = "files"
    kept: KeptTars | None = None
    image_column: str | None = None


_AS_FILES = Reading()


class Sources:
    """The images of an input; iterate once, then read what was counted."""

    def __init__(
        self,
        storage: Storage,
        input_uri: str,
        output_uri: str,
        threads: int,
        reading: Reading = _AS_FILES,
    ) -> None:
        """Find out what kind of input it is, without listing it yet.

        Args:
            storage: Where it is.
            input_uri: What the user named, normalised.
            output_uri: Left out of a listing.
            threads: Look-ups at a time, for manifests.
            reading: How the input is read.
        """
        self._storage = storage
        self._input = input_uri
        self._output = as_folder(output_uri)
        self._threads = threads
        self._trust_manifest = reading.trust_manifest
        self._asked = reading.form
        self._form = form_of(input_uri, reading.form)
        self._image_column = reading.image_column
        self._tars = OpenTars(storage, threads, reading.kept)
        self._tables = OpenTables(storage, threads, reading.image_column)
        self._num_ignored = self._num_masks = 0
        self._num_tars = self._num_packed_tars = self._num_tables = 0

    @property
    def num_ignored(self) -> int:
        """Return how many files and members of tars are no images by their names."""
        return self._num_ignored + self._tars.num_ignored + self._tables.num_without_images

    @property
    def ignored(self) -> Ignored:
        """What was met that is no image by its name."""
        masks, tars, tables = self._num_masks, self._num_tars, self._num_tables
        packed, empty = self._num_packed_tars, self._tables.num_empty
        return Ignored(self.num_ignored, masks, tars, tables, packed, empty)

    @property
    def num_header_reads(self) -> int:
        """Return how many requests were made for the headers of tars, and footers of tables."""
        return self._tars.num_reads + self._tables.num_reads

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
        """Find the images, and open the tars or tables where that is asked for."""
        if self._image_column is not None and self._form != "parquet":
            raise SettingError(
                f"image_column={self._image_column!r} is for input_form=parquet, and the input is "
                f"read as {self._form}"
            )
        if self._form == "files":
            _warn_of_masks(self._input)
            yield from self._files()
            return
        if self._form == "parquet":
            yield from self._tables.opened(self._files())
            return
        yield from self._tars.opened(self._files())
        if self._num_packed_tars:
            _log.warning("%d compressed tars are left out: %s", self._num_packed_tars, UNPACK)

    def _files(self) -> Iterator[Source]:
        entry = self._single()
        if entry is not None and self._asked == "parquet" and is_table(entry.uri):
            yield Source(entry.uri.rpartition("/")[2], entry.uri, entry.version, entry.num_bytes)
        elif entry is not None and entry.uri.rpartition("/")[2] == INVENTORY_NAME:
            yield from self._images(read_inventory(self._storage, entry.uri), "s3://")
        elif entry is not None and entry.uri.lower().endswith(MANIFEST_ENDINGS):
            yield from self._manifest(entry.uri)
        elif entry is None and (parts := self._manifest_parts()):
            for uri in parts:
                yield from self._manifest(uri)
        elif entry is not None:
            key = entry.uri.rpartition("/")[2]
            self._check_ending(key)
            yield Source(key, entry.uri, entry.version, entry.num_bytes)
        elif has_wildcard(self._input) and not self._storage.children(self._input):
            yield from self._glob()
        else:
            yield from self._folder(self._input)

    def _check_ending(self, key: str) -> None:
        """Refuse a file of which nothing is known to be read. Raises InputError."""
        if is_packed_tar(key):
            raise InputError(f"input={self._input!r} is a compressed tar: {UNPACK}")
        if is_archive(key):
            raise InputError(f"input={self._input!r} {unpack_archive(key)}")
        if "." in key and not is_image(key) and not is_tar(key):
            raise InputError(
                f"input={self._input!r} is neither an image or a tar by its ending nor a manifest "
                f"({', '.join(MANIFEST_ENDINGS)})"
            )

    def _manifest_parts(self) -> list[str]:
        """List the files of a manifest that is a folder, as Spark writes one."""
        if not self._input.lower().endswith(MANIFEST_ENDINGS) or self._asked == "parquet":
            return []
        folder = as_folder(self._input)
        names = [name for name in self._storage.children(folder) if not _is_aside(name)]
        if not any(name.lower().endswith(MANIFEST_ENDINGS) for name in names):
            return []
        # Spark writes a file for each part of its work, also where there is nothing to write.
        found = (one for one in self._storage.walk(folder) if one.num_bytes)
        uris = (one.uri for one in found if one.uri.removeprefix(folder) in names)
        return sorted(uri for uri in uris if uri.lower().endswith(MANIFEST_ENDINGS))

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
        named = is_image(entry.uri) or entry.uri.lower().endswith((*MANIFEST_ENDINGS, TAR))
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

    def _images(
        self, entries: Iterable[Entry], prefix: str, pattern: re.Pattern[str] | None = None
    ) -> Iterator[Source]:
        """Choose what is an image by its name; its key is what follows the prefix."""
        output = self._output_below(prefix)
        for entry in entries:
            uri = readable_name(entry.uri)
            key = uri.removeprefix(prefix)
            if (output and key.startswith(output)) or not self._takes(key, uri):
                continue
            if pattern is None or pattern.match(uri):
                refusal = ErrorCode.NAME_NOT_UTF8 if uri != entry.uri else None
                # Its row will say why it may not be looked at.
                size = entry.num_bytes if entry.version else None
                yield Source(key, uri, entry.version or None, size, refusal)

    def _takes(self, key: str, uri: str) -> bool:
        """Return whether a file is listed, as an image or to be opened; counts what is not."""
        # Masks of this or another output are no photographs.
        is_mask = "/masks/run=" in uri or _OF_EVALUATION.search(uri) is not None
        if not is_mask and (is_image(key) or self._opens(key)):
            return True
        self._num_ignored += 1
        self._num_masks += is_mask
        self._num_tars += is_tar(key) and not is_mask
        self._num_packed_tars += is_packed_tar(key)
        if self._form != "parquet":
            self._num_tables += is_table(key) and not _OF_LABEL.search(uri)
        return False

    def _opens(self, key: str) -> bool:
        if self._form == "tar":
            return is_tar(key)
        return self._form == "parquet" and is_table(key) and not _is_aside(key)

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
        yield from self._images(self._storage.walk(fixed), fixed, pattern)

    def _manifest(self, manifest_uri: str) -> Iterator[Source]:
        file = open_object(self._storage, manifest_uri)
        named = manifest_entries(file, manifest_uri, trusted=self._trust_manifest)
        yield from LookUps(self._storage, self._input, self._threads).sources(named)


def _warn_of_masks(uri: str) -> None:
    name = uri.rstrip("/").rpartition("/")[2]
    if name in _MASK_FOLDERS:
        _log.warning(
            "input=%r: folders of this name mostly hold masks, and masks are labelled like "
            "photographs; are the images in a folder beside it?",
            uri,
        )


def _is_aside(key: str) -> bool:
    """Return whether a name is one that writers of tables set aside, or AppleDouble's."""
    return key.rpartition("/")[2].startswith(("_", "."))
