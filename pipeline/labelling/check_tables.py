"""Compare the rows of published tables with those of commit records, row by row as they come."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.images.masks import IGNORE_INDEX
from pipeline.labelling.breaks import Breaks
from pipeline.labelling.class_statistics import IGNORED
from pipeline.labelling.records import TablePart
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import CLASS_STATISTICS, IMAGES, OK, of_any_version
from pipeline.store.parquet import DAMAGE
from pipeline.store.storage import sha256_hex

_ROWS_AT_A_TIME = 500


class TableCheck:
    """Reads some files of both tables along with the commit records that they were made of."""

    def __init__(
        self, run: Run, images: list[TablePart], statistics: list[TablePart], breaks: Breaks
    ) -> None:
        """Begin at the first row.

        Args:
            run: The run of the tables.
            images: Files of the table `images`.
            statistics: Files of the table `class_statistics`, of the same images.
            breaks: Gets what differs.
        """
        self._images = _rows(run, images, IMAGES, breaks)
        self._statistics = _rows(run, statistics, CLASS_STATISTICS, breaks)
        self._names = {label.id: label.name for label in run.record.network.classes}
        self._names[IGNORE_INDEX] = IGNORED
        self._breaks = breaks

    def check(self, row: dict[str, Any]) -> None:
        """Compare the next image.

        Args:
            row: The row of its commit record.
        """
        if next(self._images, None) != {name: row[name] for name in IMAGES.names}:
            self._breaks.add("images table differs from the commits", row["key"])
        for entry in row["classes"] if row["status"] == OK else ():
            self._check_statistics(row, entry)

    def _check_statistics(self, row: dict[str, Any], entry: dict[str, Any]) -> None:
        published = next(self._statistics, None)
        expected = {
            **{name: row[name] for name in ("image_id", "key", "run_id")},
            **entry,
            "class_name": self._names.get(entry["class_id"]),
            "pixel_fraction": entry["pixel_count"] / (row["height"] * row["width"]),
        }
        found = {name: published.get(name) for name in expected} if published else None
        if found != expected:
            what = f"{row['key']} {entry}"
            self._breaks.add("class_statistics differs from the commits", what)

    def end(self) -> None:
        """Find rows that are left over."""
        tables = (("images", self._images), ("class_statistics", self._statistics))
        for table, left in tables:
            for row in left:
                self._breaks.add(f"{table} has a row that no commit knows", str(row["key"]))


def _rows(
    run: Run, parts: list[TablePart], schema: pa.Schema, breaks: Breaks
) -> Iterator[dict[str, Any]]:
    for part in parts:
        data = run.storage.find(f"{run.output}/{part.file}")
        if data is None:
            breaks.add("file is missing", part.file)
            continue
        try:
            yield from _rows_of(data, schema)
        except DAMAGE as error:
            breaks.add("file is unreadable", f"{part.file}: {error}")
            continue
        if sha256_hex(data) != part.sha256:
            breaks.add("table file has another sha256", part.file)


def _rows_of(data: bytes, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    """Read a file some rows at a time, in the thread that asks (see pipeline/store/parquet.py)."""
    with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False) as file:
        for batch in file.iter_batches(_ROWS_AT_A_TIME, use_threads=False):
            yield from of_any_version(pa.Table.from_batches([batch]), schema).to_pylist()
