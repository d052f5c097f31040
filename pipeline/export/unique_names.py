"""Names of images in an export: unlike below an input, each is there once without its ending."""

import hashlib
import re
from urllib.parse import quote

from pipeline.errors import InputError
from pipeline.export.newest import Row
from pipeline.labelling.mask_names import mask_key

# Lists of names have one a line, and comments: what they can't hold is percent-encoded.
_UNLISTABLE = re.compile(r"\A[#\s]|\s\Z|[\r\n]")
_NUM_BYTES = 8


class Names:
    """Gives every image a name that no other has; remembers eight bytes of each."""

    def __init__(self) -> None:
        """Begin with none."""
        self._given: set[bytes] = set()

    def of(self, row: Row) -> str:
        """Name an image: like its mask, else with its ending, else by its whole place.

        Args:
            row: The row of an image that has a mask.

        Raises:
            InputError: All three are taken.
        """
        place = row["uri"].partition("://")[2].lstrip("/")
        full = (mask_key(key, "full").removesuffix(".png") for key in (row["key"], place))
        for name in (row["mask_key"].removesuffix(".png"), *full):
            listable = _UNLISTABLE.sub(lambda found: quote(found[0], safe=""), name)
            digest = hashlib.blake2b(listable.encode(), digest_size=_NUM_BYTES).digest()
            if digest not in self._given:
                self._given.add(digest)
                return listable
        raise InputError(f"{row['uri']}: another image has its name, {row['key']!r}; use run_id")
