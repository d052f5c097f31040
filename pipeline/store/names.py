"""Names that a place can hold: a bucket's keys and a disk's paths have a greatest length."""

import os
from dataclasses import dataclass

from pipeline.store.uri import BUCKETS, local_path

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html; Google's limit is the
# same, and Azure's as many characters.
MAX_KEY_BYTES = 1024
# NAME_MAX and PATH_MAX of Linux; the path's last byte is NUL.
MAX_PART_BYTES = 255
MAX_PATH_BYTES = 4095


@dataclass(frozen=True)
class NamedPlace:
    """A folder, by its URI, and what may be called what below it."""

    folder: str

    def holds(self, name: str) -> bool:
        """Return whether an object of this name can lie below the folder.

        Args:
            name: With slashes between its parts.
        """
        uri = f"{self.folder}/{name}"
        if uri.startswith(BUCKETS):
            key = uri.partition("://")[2].partition("/")[2]
            return len(key.encode()) <= MAX_KEY_BYTES
        path = os.fsencode(local_path(uri))
        longest = max(map(len, os.fsencode(name).split(b"/")))
        return len(path) <= MAX_PATH_BYTES and longest <= MAX_PART_BYTES
