"""Shards: what is left of a plan, and the groups in which it is fetched."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.labelling.shards import PlanPart, Shards, tasks_of

_PER_FILE = 64


def _shards(num_shards: int, numbers: list[int]) -> Shards:
    plan = [
        PlanPart(
            file=f"part-{first}",
            first_shard=first,
            num_images=[1 + shard for shard in range(first, min(first + _PER_FILE, num_shards))],
        )
        for first in range(0, num_shards, _PER_FILE)
    ]
    return Shards("plan", plan, numbers)


@given(st.sets(st.integers(0, 999)))
def test_groups_are_the_shards_in_order(numbers: set[int]) -> None:
    """Whatever is left, every shard is in one group, with its file and its place in it."""
    shards = _shards(1000, sorted(numbers))

    tasks = [task for group in shards.groups() for task in tasks_of(group)]

    assert tasks == list(shards)
    assert [task["shard"] for task in tasks] == sorted(numbers)
    for task in tasks:
        first, group = divmod(task["shard"], _PER_FILE)
        assert task["plan_uri"] == f"plan/part-{first * _PER_FILE}"
        assert task["row_group"] == group


@pytest.mark.parametrize(
    ("number", "sizes"),
    [(1, {1: 1}), (33, {1: 33}), (96, {3: 1, 2: 15, 1: 63})],
)
def test_a_small_run_is_fetched_in_many_places(number: int, sizes: dict[int, int]) -> None:
    """A group is at most a thirty-second of what is left, and at least one shard."""
    groups = list(_shards(number, list(range(number))).groups())

    assert Counter(len(group["row_groups"]) for group in groups) == sizes


def test_a_large_run_reads_a_file_of_the_plan_once() -> None:
    """As long as much is left, a group is a whole file; only the end is cut finer."""
    groups = list(_shards(64 * 640, list(range(64 * 640))).groups())

    whole = [group for group in groups if len(group["row_groups"]) == _PER_FILE]
    assert groups[: len(whole)] == whole
    assert len(whole) > 600
    assert len(groups[-1]["row_groups"]) == 1


def test_shards_are_a_sequence() -> None:
    """They are counted, picked and cut like a list, and know their images."""
    shards = _shards(130, [3, 64, 129])

    assert (len(shards), shards.num_images) == (3, 4 + 65 + 130)
    assert shards[-1] == {"shard": 129, "plan_uri": "plan/part-128", "row_group": 1}
    assert [task["shard"] for task in shards[1:]] == [64, 129]
    assert [[task["shard"] for task in part] for part in shards.parts(2)] == [[3, 64], [129]]
