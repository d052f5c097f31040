"""Files of a series, each filled up to a number of things or of bytes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from pipeline.export.form import File

_Thing = TypeVar("_Thing")


@dataclass
class Parts(Generic[_Thing]):
    """Collects things until they fill a file.

    Attributes:
        place: Makes a file's place of its number, from 0 on.
        encode: Makes a file of its things.
        max_number: Things per file.
        max_bytes: Bytes of things per file.
    """

    place: Callable[[int], str]
    encode: Callable[[list[_Thing]], bytes]
    max_number: int
    max_bytes: int
    _held: list[_Thing] = field(default_factory=list)
    _num_bytes: int = 0
    _num_files: int = 0

    def add(self, thing: _Thing, num_bytes: int) -> Iterable[File]:
        """Take a thing up; gives the file that it fills.

        Args:
            thing: The next one.
            num_bytes: What it is counted as.
        """
        self._held.append(thing)
        self._num_bytes += num_bytes
        full = len(self._held) >= self.max_number or self._num_bytes >= self.max_bytes
        return self.close() if full else ()

    def close(self) -> Iterable[File]:
        """Return what is held as a file, if anything is."""
        if not self._held:
            return ()
        file = (self.place(self._num_files), self.encode(self._held))
        self._held, self._num_bytes = [], 0
        self._num_files += 1
        return (file,)
