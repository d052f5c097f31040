"""Staging: what is compared and sorted, as tables of DuckDB, which spill to disk.

A listing of a hundred million images and what earlier runs have said of them are larger than a
driver's memory. DuckDB keeps to a limit and groups, joins and sorts the rest on a disk.
"""

import os
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.errors import SettingError
from pipeline.labelling.scratch import Scratch, no_room

# Of DuckDB alone: the interpreter and one chunk of rows come on top.
_MEMORY = "512MB"
# Each has its own buffers: on a node of many cores they would have no memory left.
_MAX_THREADS = 4
_ROWS = 16_384
_NO_ROOM = (
    OSError,
    duckdb.IOException,
    duckdb.OutOfMemoryException,
    duckdb.TransactionException,  # the disk is full when a statement ends
)
# Of DuckDB, where its memory is full because the disk is: nothing can be moved there.
_DISK_IS_FULL = "max_temp_directory_size"


class Staging:
    """Tables of one command, in a folder that goes with it.

    Attributes:
        folder: Path of the folder, which may hold other files, too.
    """

    def __init__(self, memory: str | None = None) -> None:
        """Open an empty database in a temporary folder.

        Args:
            memory: Of DuckDB alone, as it writes sizes; None is what planning takes.

        Raises:
            SettingError: The folder for temporary files can't be written.
        """
        with self._explained():
            scratch = Scratch()
        self.folder = scratch.path
        self._remove = weakref.finalize(self, scratch.close)
        with self._explained():
            self._database = duckdb.connect(
                f"{scratch.path}/plan.duckdb",
                config={
                    "memory_limit": memory or _MEMORY,
                    "temp_directory": scratch.path,
                    "threads": min(_MAX_THREADS, os.cpu_count() or 1),
                },
            )

    def fill(self, name: str, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
        """Create a table and put rows into it.

        Args:
            name: The name of the table.
            schema: Of it.
            tables: Its rows, some at a time.

        Raises:
            SettingError: There is no room for them on the disk, or too little memory.
        """
        with self._explained():
            self._database.from_arrow(schema.empty_table()).create(name)
        for rows in tables:
            with self._explained():
                self._database.from_arrow(rows).insert_into(name)

    def run(self, query: str, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a statement.

        Args:
            query: With `$name` for each value.
            values: By name.

        Returns:
            Its rows, which should be few.
        """
        with self._explained():
            return self._database.execute(query, dict(values or {})).fetchall()

    def stream(
        self,
        name: str,
        schema: pa.Schema,
        order: str,
        *,
        where: str = "true",
        limit: int | None = None,
    ) -> Iterator[pa.Table]:
        """Read rows of a table, some at a time; nothing else runs until the last is read.

        Args:
            name: The name of the table.
            schema: The schema of the columns that are read.
            order: Columns that the rows are sorted by, with commas.
            where: Which rows are read.
            limit: How many are read, at most.
        """
        columns = ", ".join(schema.names)
        with self._explained():
            rows = self._database.table(name).filter(where).order(order)
            found = rows if limit is None else rows.limit(limit)
            for batch in found.project(columns).to_arrow_reader(_ROWS):
                yield pa.Table.from_batches([batch]).cast(schema)

    def close(self) -> None:
        """Free memory and disk."""
        self._database.close()
        self._remove()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except _NO_ROOM as error:
            short_of_memory = isinstance(error, duckdb.OutOfMemoryException)
            if short_of_memory and _DISK_IS_FULL not in str(error):
                raise _no_memory(error) from error
            raise no_room(error) from error


def _no_memory(error: Exception) -> SettingError:
    # What follows the first line are settings of DuckDB, which nobody can reach here.
    reason = str(error).partition("\n")[0]
    return SettingError(
        f"more memory is needed: {reason}; end what else takes memory on this machine, take one "
        "with more, or take the input in parts"
    )
