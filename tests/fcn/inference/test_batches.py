"""Batches: images of one size together, in the order that they came."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn.inference.batches import Batching


def _of_one_size(number: int) -> list[np.ndarray]:
    return [np.zeros((2, 3, 3), np.uint8)] * number


@pytest.mark.parametrize(
    ("number", "even", "sizes"),
    [
        (21, False, [8, 8, 5]),
        (21, True, [7, 7, 7]),
        (16, True, [8, 8]),
        (17, True, [5, 6, 6]),
        (3, True, [3]),
        (3, False, [3]),
        (0, True, []),
    ],
)
def test_a_size_is_cut_into_few_numbers(number: int, *, even: bool, sizes: list[int]) -> None:
    """Even batches differ by one image at most and are no more than full ones would be."""
    found = [len(one) for one in Batching(8, even=even).share_out(_of_one_size(number))]
    assert found == sizes


@given(
    sides=st.lists(st.integers(1, 3), max_size=40),
    size=st.integers(1, 9),
    even=st.booleans(),
)
def test_every_image_is_in_one_batch(sides: list[int], size: int, *, even: bool) -> None:
    """Batches hold images of one size, no more than allowed, and each image once and in order."""
    images = [np.zeros((side, 2, 3), np.uint8) for side in sides]
    batches = list(Batching(size, even=even).share_out(images))
    assert sorted(index for batch in batches for index in batch) == list(range(len(images)))
    for batch in batches:
        assert batch == sorted(batch)
        assert 0 < len(batch) <= size
        assert len({images[index].shape for index in batch}) == 1


def test_batches_are_filled_up_where_it_is_asked_for() -> None:
    """A short batch gets copies behind its images; one of pictures that are too large gets none."""
    images = [np.full((4, 5, 3), value, np.uint8) for value in range(3)]
    filled = Batching(5, max_filled_pixels=20).filled(images)
    assert [image[0, 0, 0] for image in filled] == [0, 1, 2, 2, 2]
    assert len(Batching(5, max_filled_pixels=19).filled(images)) == 3
    assert len(Batching(5).filled(images)) == 3
