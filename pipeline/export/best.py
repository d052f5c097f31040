"""The rows of the lowest score out of a stream, with a limit per folder: exact, in one pass."""

from bisect import insort
from collections import Counter
from collections.abc import Collection, Mapping

from pipeline.export.newest import Row


def folder_of(row: Row) -> str:
    """Return the folder of an image, by its URI."""
    folder: str = row["uri"].rpartition("/")[0]
    return folder


class Best:
    """Keeps the best rows that were added, and holds no others.

    Whatever is added later can only push rows out, never bring one back: sets with a limit per
    folder and a limit in all are the independent sets of a matroid.
    """

    def __init__(
        self,
        number: int,
        per_folder: int | None = None,
        in_folder: Mapping[str, int] | None = None,
        without: Collection[str] = (),
    ) -> None:
        """Begin with none.

        Args:
            number: Rows to keep at most.
            per_folder: Rows of one folder at most; None sets no limit.
            in_folder: Rows of each folder that were taken before.
            without: URIs of rows that are not to be kept.
        """
        self._number = number
        self._per_folder = per_folder
        self._kept: list[tuple[float | str, str, Row]] = []
        self._in_folder = Counter(in_folder or {})
        self._without = without

    def add(self, score: float | str, row: Row) -> None:
        """Take a row up if it is among the best.

        Args:
            score: The lower the better; of one kind for all rows.
            row: Of another URI than all before.
        """
        entry = (score, row["uri"], row)
        full = len(self._kept) == self._number and self._kept[-1][:2] < entry[:2]
        if full or row["uri"] in self._without:
            return
        folder = folder_of(row)
        if self._per_folder is not None and self._in_folder[folder] >= self._per_folder:
            worst = self._worst_of(folder)
            if worst is None or self._kept[worst][:2] < entry[:2]:
                return
            self._drop(worst)
        insort(self._kept, entry, key=lambda one: one[:2])
        self._in_folder[folder] += 1
        if len(self._kept) > self._number:
            self._drop(-1)

    def rows(self) -> list[Row]:
        """Return the rows that are kept, the best first."""
        return [row for _, _, row in self._kept]

    def _worst_of(self, folder: str) -> int | None:
        places = reversed(range(len(self._kept)))
        return next((at for at in places if folder_of(self._kept[at][2]) == folder), None)

    def _drop(self, place: int) -> None:
        folder = folder_of(self._kept.pop(place)[2])
        self._in_folder[folder] -= 1
        if not self._in_folder[folder]:
            del self._in_folder[folder]
