"""Parquet files out of bytes, read in the thread that asks.

Arrow's own threads let go of what they have read at a moment of their own. Where that is memory of
Python's and the interpreter is about to end, they need a lock that is gone, and the process aborts
after its work is done (two of 60 runs of `verify` on a busy machine).
"""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

# What reading a damaged file raises.
DAMAGE = (pa.ArrowException, OSError, ValueError)


def read_parquet(
    data: bytes, columns: Sequence[str] | None = None, row_group: int | None = None
) -> pa.Table:
    """Read a file, or a part of it.

    Args:
        data: The file.
        columns: In this order, of those that the file has; None reads all.
        row_group: Only this one; None reads all.

    Raises:
        pa.ArrowException: As all of `DAMAGE`: the file is damaged, or has no such part.
    """
    names = None if columns is None else list(columns)
    with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False) as file:
        there = set(file.schema_arrow.names)
        table = (
            file.read(names, use_threads=False)
            if row_group is None
            else file.read_row_group(row_group, names, use_threads=False)
        )
    return table if names is None else table.select([one for one in names if one in there])
