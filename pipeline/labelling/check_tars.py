"""The tars that a commit record names, as verify reads them: one request for each."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from pipeline.labelling.check_mask import place_of_mask
from pipeline.labelling.mask_names import mask_key
from pipeline.labelling.mask_tar import TornTarError, spans_of
from pipeline.labelling.runs import Run
from pipeline.store.extent import Extent

Row = dict[str, Any]


class _Piece(NamedTuple):
    """What was read of a tar: its bytes from `start` on, None if there is no tar."""

    start: int
    data: bytes | None


class TarMasks:
    """The masks of some rows of a shard.

    Attributes:
        torn: Tars that can't be read, each with what its reader says.
    """

    def __init__(self, run: Run, rows: Iterable[Row], *, whole: bool) -> None:
        """Read the tars.

        Args:
            run: The run of the rows.
            rows: Those whose masks are read.
            whole: Whether tars are read to their ends, and members looked at, too; else from the
                first to the last of the masks.

        Raises:
            StoreError: The store did not answer.
        """
        self._run = run
        self._pieces = {
            extent.uri: _Piece(extent.offset or 0, run.storage.find_extent(extent))
            for extent in _extents(run, rows, whole=whole)
        }
        self._members: dict[str, dict[str, range]] = {}
        self.torn: list[tuple[str, str]] = []
        if whole:
            self._open()

    def _open(self) -> None:
        for uri, piece in self._pieces.items():
            try:
                if piece.data is not None:
                    self._members[uri] = spans_of(piece.data)
            except TornTarError as error:
                self.torn.append((uri, str(error)))

    def __len__(self) -> int:
        """Return the number of tars that the rows name."""
        return len(self._pieces)

    def find(self, place: Extent) -> bytes | None:
        """Return a mask's file; None if there is no tar, less than it has if that is cut off."""
        piece = self._pieces.get(place.uri)
        if place.span is None or piece is None:
            return self._run.storage.find_extent(place)
        if piece.data is None:
            return None
        return piece.data[place.span.start - piece.start : place.span.stop - piece.start]

    def problems(self, row: Row) -> list[tuple[str, str]]:
        """Tell where a row and the names in its tar contradict each other.

        Args:
            row: The row of an image that has a mask.
        """
        place = place_of_mask(self._run, row)
        if place.uri not in self._members:
            return []
        name = mask_key(row["key"], self._run.record.settings["mask_name"])
        span = self._members[place.uri].get(name)
        if span is not None and span == place.span:
            return []
        there = "no such member" if span is None else str(Extent(place.uri, span[0], len(span)))
        return [("mask has another place in its tar", f"{there}, committed {place}")]


def _extents(run: Run, rows: Iterable[Row], *, whole: bool) -> Iterator[Extent]:
    """Say what is read of each tar."""
    spans: dict[str, range] = {}
    for row in rows:
        place = place_of_mask(run, row)
        if place.span is not None:
            known = spans.get(place.uri, place.span)
            first, end = min(known.start, place.span.start), max(known.stop, place.span.stop)
            spans[place.uri] = range(first, end)
    for uri, span in spans.items():
        yield Extent(uri) if whole else Extent(uri, span.start, len(span))
