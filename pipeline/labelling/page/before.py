"""How sure another network was of the same images, in the run before, and where its masks lie.

A network labels a version of an image once, so only runs of two networks have images in common.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.labelling.schema import IMAGES

_OF_MASK = ["mask_uri", "mask_offset", "mask_bytes"]
COLUMNS = ["image_id", "mean_confidence", *_OF_MASK]


class Before:
    """What an earlier run says of a million images at most, in some hundred bytes each."""

    def __init__(self, tables: Iterable[pa.Table], written_to: str = "") -> None:
        """Read them.

        Args:
            tables: With those of `COLUMNS` that runs of their version have.
            written_to: What most of its masks' URIs begin with, which is kept once for all.
        """
        short = [_without(table, written_to) for table in tables]
        found = pa.concat_tables([_EMPTY, *short], promote_options="default")
        self._ids = found["image_id"].combine_chunks()
        self._confidences = found["mean_confidence"].combine_chunks()
        self._masks = found.select(_OF_MASK)

    def less_sure(self, labelled: pa.Table) -> pa.Table:
        """Return the rows of which the network is less sure now.

        Args:
            labelled: Rows of the images table that have a mask.

        Returns:
            Them with `change`, which is negative, and `place`, for `masks`.
        """
        places = pc.index_in(labelled["image_id"], value_set=self._ids)
        change = pc.subtract(labelled["mean_confidence"], self._confidences.take(places))
        known = labelled.append_column("change", change).append_column("place", places)
        return known.filter(pc.less(change, 0.0))

    def masks(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Say where the earlier masks of some images lie, below the folder they were written to.

        Args:
            places: From `less_sure`.
        """
        rows: list[dict[str, Any]] = self._masks.take(pa.array(places, pa.int64())).to_pylist()
        return rows


def _without(table: pa.Table, written_to: str) -> pa.Table:
    at = table.schema.get_field_index("mask_uri")
    short = pc.replace_substring(table["mask_uri"], written_to, "", max_replacements=1)
    return table.set_column(at, "mask_uri", short)


_EMPTY = pa.schema([IMAGES.field(name) for name in COLUMNS]).empty_table()
