"""Names of images in an export: unlike below an input, each is there once without its ending."""

import hashlib
import re
import sqlite3
from urllib.parse import quote

from pipeline.errors import InputError
from pipeline.export.newest import Row
from pipeline.labelling.mask_names import mask_key
from pipeline.labelling.scratch import Scratch, no_room

# Lists of names have one a line, and comments: what they can't hold is percent-encoded.
_UNLISTABLE = re.compile(r"\A[#\s]|\s\Z|[\r\n]")
# A folder that is called like a file of an export, beside which it could not lie on a disk.
_LIKE_A_FILE = re.compile(r"\.(?=(?:jpg|png)/)", re.IGNORECASE)
_NUM_BYTES = 8


class Names:
    """Gives every image a name that no other has; remembers eight bytes of each, on a disk."""

    def __init__(self) -> None:
        """Begin with none.

        Raises:
            SettingError: There is no room in the temporary folder.
        """
        try:
            self._scratch = Scratch()
            self._given = sqlite3.connect(f"{self._scratch.path}/names.sqlite")
            # Nothing of it has to outlive the process.
            self._given.execute("PRAGMA journal_mode = OFF")
            self._given.execute("PRAGMA synchronous = OFF")
            self._given.execute("CREATE TABLE given (digest INTEGER PRIMARY KEY)")
        except (OSError, sqlite3.OperationalError) as error:
            raise no_room(error) from error

    def of(self, row: Row) -> str:
        """Name an image: like its mask, else with its ending, else by its whole place.

        Args:
            row: The row of an image that has a mask.

        Raises:
            InputError: All three are taken.
            SettingError: There is no room in the temporary folder.
        """
        place = row["uri"].partition("://")[2].lstrip("/")
        full = (mask_key(key, "full").removesuffix(".png") for key in (row["key"], place))
        for name in (row["mask_key"].removesuffix(".png"), *full):
            listable = _UNLISTABLE.sub(lambda found: quote(found[0], safe=""), name)
            listable = _LIKE_A_FILE.sub("%2E", listable)
            if self._is_new(listable):
                return listable
        raise InputError(f"{row['uri']}: another image has its name, {row['key']!r}; use run_id")

    def close(self) -> None:
        """Free the disk."""
        self._given.close()
        self._scratch.close()

    def _is_new(self, name: str) -> bool:
        """Take a name up, unless it is there."""
        digest = hashlib.blake2b(name.encode(), digest_size=_NUM_BYTES).digest()
        number = int.from_bytes(digest, "big", signed=True)
        try:
            added = self._given.execute("INSERT OR IGNORE INTO given VALUES (?)", (number,))
        except sqlite3.OperationalError as error:
            raise no_room(error) from error
        return added.rowcount == 1
