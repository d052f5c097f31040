"""The switches of Ray Data that shape what travels between steps."""

from collections.abc import Iterator
from typing import Any

import ray.data

from pipeline.cluster.data_context import keep_rows_apart


def _rows(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return ({"number": int(number), "data": b"x" * 100} for number in row["numbers"])


def test_every_row_is_a_block_of_its_own(ray_session: str):
    """What one task yields goes on row by row, in a block each, small as they are."""
    source = ray.data.from_items([{"numbers": [1, 2, 3]}, {"numbers": [4]}], override_num_blocks=2)
    keep_rows_apart(source.context)

    found = source.flat_map(_rows, num_cpus=0.1).map(lambda row: row, num_cpus=0.2).materialize()

    assert found.num_blocks() == 4
    assert sorted(row["number"] for row in found.iter_rows()) == [1, 2, 3, 4]
    assert ray.data.DataContext.get_current().target_max_block_size > 1
