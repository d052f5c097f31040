"""The timeline: exact whatever the order, and small however long the run."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.labelling.timeline import Timeline, TimelineSum

_SHARDS = st.lists(
    st.tuples(st.floats(1e9, 1e9 + 1e6), st.floats(0, 500), st.integers(0, 256)), max_size=30
)


def _total(shards: list[tuple[float, float, int]]) -> Timeline | None:
    timeline = TimelineSum()
    for begun, took, number in shards:
        timeline.add([(begun, begun + took)], number)
    return timeline.total()


@given(_SHARDS)
def test_the_order_of_the_shards_does_not_matter(shards: list[tuple[float, float, int]]) -> None:
    """Backwards gives the same steps, which hold every image and are no more than 96."""
    found = _total(shards)
    assert found == _total(shards[::-1])
    if found is not None:
        assert sum(found.num_images) == sum(number for *_, number in shards)
        assert len(found.num_images) <= 96


def test_images_stand_where_their_shard_was_done() -> None:
    """The first step begins with the first shard, and seconds without a shard are empty."""
    found = _total([(100.2, 1.0, 7), (100.9, 4.5, 8)])
    assert found is not None
    assert (found.started_at, found.step_s) == (100, 1)
    assert np.array_equal(found.num_images, [0, 7, 0, 0, 0, 8])


def test_records_of_earlier_versions_have_no_time() -> None:
    """Shards that say nothing of when they were done make no timeline."""
    timeline = TimelineSum()
    timeline.add([], 5)
    assert timeline.total() is None
