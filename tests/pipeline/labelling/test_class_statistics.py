"""Class statistics: exact, and the same in whatever order they are added."""

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from pipeline.labelling.class_statistics import ClassTotals, count_classes
from pipeline.labelling.schema import CLASS_STATISTICS

_MASKS = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=30))


def _rows(counts: dict[int, int]) -> pa.Table:
    rows = [
        {"image_id": "x", "class_id": index, "pixel_count": count}
        for index, count in counts.items()
    ]
    return pa.Table.from_pylist(rows, CLASS_STATISTICS)


def _totals(masks: list[NDArray[np.uint8]]) -> ClassTotals:
    totals = ClassTotals()
    for mask in masks:
        totals.add(_rows(count_classes(mask)))
    return totals


def test_classes_are_counted() -> None:
    """Each class that is present is counted, absent ones are left out, the ignore index too."""
    mask = np.array([[2, 2, 0], [255, 2, 0]], np.uint8)
    assert list(count_classes(mask).items()) == [(0, 2), (2, 3), (255, 1)]


@given(_MASKS)
def test_counts_are_those_of_a_plain_loop(mask: NDArray[np.uint8]) -> None:
    """The counts are what counting pixel by pixel gives, and sum to the number of pixels."""
    plain = {value: mask.flatten().tolist().count(value) for value in sorted(set(mask.flat))}
    assert count_classes(mask) == plain
    assert sum(count_classes(mask).values()) == mask.size


def test_counts_are_plain_integers() -> None:
    """Counts are Python's integers, which JSON and Arrow take and which never overflow."""
    found = count_classes(np.zeros((2, 2), np.uint8))
    assert {type(value) for pair in found.items() for value in pair} == {int}


@given(st.lists(_MASKS, max_size=6), st.randoms())
def test_totals_do_not_depend_on_the_order(
    masks: list[NDArray[np.uint8]], order: random.Random
) -> None:
    """Adding images in another order gives the same totals: those of all pixels at once."""
    shuffled = sorted(masks, key=lambda _: order.random())
    pixels = [value for mask in masks for value in mask.flatten().tolist()]
    presence = [value for mask in masks for value in set(mask.flatten().tolist())]
    totals = _totals(shuffled)
    assert totals.pixels == {value: pixels.count(value) for value in set(pixels)}
    assert totals.images == {value: presence.count(value) for value in set(presence)}


@pytest.mark.parametrize("count", [1 << 40, 1 << 62])
def test_totals_are_exact_beyond_64_bits(count: int) -> None:
    """Sums are exact however large they get."""
    totals = ClassTotals()
    for _ in range(3):
        totals.add(_rows({7: count}))
    assert (totals.pixels[7], totals.images[7]) == (3 * count, 3)
