"""The rows of several runs in order of the images' places: a disk sorts them.

Each run's tables are in order, and could be merged. That holds a table of every run, which is as
much memory as there are nights.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import pyarrow as pa

from pipeline.export.published import PUBLISHED
from pipeline.labelling.staging import Staging

_STAGED = PUBLISHED.append(pa.field("number", pa.int64()))
_MEMORY = "256MB"
# What is sorted beyond its memory DuckDB sorts in parts, and merging them takes some of that memory
# for each: 3 million rows at once went well, 20 million did not.
_ROWS_PER_SORT = 1_000_000
_SAMPLED_PER_SORT = 100
_SAMPLE = "SELECT place FROM answers WHERE hash(number) % $step = 0 ORDER BY place"


def by_place(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Sort rows of `PUBLISHED`; those of one place stay in the order in which they come.

    Args:
        tables: The rows, which are read one table after the other.

    Raises:
        SettingError: There is no room for them on the disk.
    """
    staging = Staging(_MEMORY)
    try:
        staging.fill("answers", _STAGED, _numbered(tables))
        for where in _ranges(staging):
            yield from staging.stream("answers", PUBLISHED, "place, number", where=where)
    finally:
        staging.close()


def _numbered(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    first = 0
    for table in tables:
        numbers = pa.array(range(first, first + table.num_rows), pa.int64())
        yield table.append_column(_STAGED.field("number"), numbers)
        first += table.num_rows


def _ranges(staging: Staging) -> Iterator[str]:
    """Cut the places into ranges of so many rows, more or less; gives the conditions of each."""
    sampled = staging.run(_SAMPLE, {"step": _ROWS_PER_SORT // _SAMPLED_PER_SORT})
    bounds = dict.fromkeys(place for (place,) in sampled[_SAMPLED_PER_SORT::_SAMPLED_PER_SORT])
    for lower, upper in pairwise(["", *bounds, None]):
        below = "true" if upper is None else f"place < {_literal(upper)}"
        yield f"place >= {_literal(lower)} AND {below}"


def _literal(text: str | None) -> str:
    """Write a text so that no character of it means anything to SQL."""
    return f"decode(unhex('{(text or '').encode().hex()}'))"
