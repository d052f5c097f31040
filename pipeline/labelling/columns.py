"""Columns: of Parquet files with images, the one that was read last stays open.

A row group seldom ends where a shard does. Shards that are fetched one after the other take what
is left of it out of memory.
"""

from pipeline.labelling.reads import Read
from pipeline.store.cells import ImageColumn, open_parquet
from pipeline.store.storage import Storage


class Columns:
    """Opens columns, and keeps the last one; for several threads, each with columns of its own."""

    def __init__(self) -> None:
        """Begin with none."""
        self._last: tuple[tuple[str, str | None, str], ImageColumn] | None = None

    def open(self, storage: Storage, read: Read) -> ImageColumn:
        """Open the column of a read, or take the one that is open.

        Args:
            storage: The storage as it reads the input.
            read: Images of one column.

        Raises:
            StoreError: The file has changed, can't be read, or has no such column.
        """
        assert read.place.cell is not None, f"{read.place} lies in a Parquet file"
        named = (read.place.uri, read.version, read.place.cell.column)
        last = self._last
        if last is not None and last[0] == named:
            return last[1]
        opened = ImageColumn(open_parquet(storage, *named[:2]), named[2])
        self._last = (named, opened)
        return opened
