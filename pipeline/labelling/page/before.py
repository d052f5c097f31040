"""How sure another network was of the same images, in the run before.

A network labels a version of an image once, so only runs of two networks have images in common.
"""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = ["image_id", "mean_confidence"]


class Before:
    """The confidences of an earlier run: some fifty bytes for each of a million images at most."""

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        """Read them.

        Args:
            tables: With `COLUMNS`.
        """
        found = pa.concat_tables([_EMPTY, *(table.select(COLUMNS) for table in tables)])
        self._ids = found["image_id"].combine_chunks()
        self._confidences = found["mean_confidence"].combine_chunks()

    def less_sure(self, labelled: pa.Table) -> pa.Table:
        """Return the rows of which the network is less sure now, with `change`, which is negative.

        Args:
            labelled: Rows of the images table that have a mask.
        """
        places = pc.index_in(labelled["image_id"], value_set=self._ids)
        change = pc.subtract(labelled["mean_confidence"], self._confidences.take(places))
        return labelled.append_column("change", change).filter(pc.less(change, 0.0))


_EMPTY = pa.schema([("image_id", pa.string()), ("mean_confidence", pa.float64())]).empty_table()
