"""Boundary IU: against the paper's erosion pixel by pixel, and its sums."""

import numpy as np
import pytest

from fcn.boundary import BoundaryCounts, near_outlines


def _eroded(mask: np.ndarray, reach: int) -> np.ndarray:
    """Erode by 3 x 3 squares, again and again, outside being no part of the mask."""
    for _ in range(reach):
        framed = np.pad(mask, 1)
        height, width = mask.shape
        mask = np.logical_and.reduce(
            [framed[y : y + height, x : x + width] for y in range(3) for x in range(3)]
        )
    return mask


@pytest.mark.parametrize("size", [(1, 1), (5, 90), (60, 80), (151, 33)])
def test_outlines_are_those_of_the_papers_erosion(size: tuple[int, int]):
    """A pixel is near an outline where eroding its class by the distance takes it away."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, (-(-size[0] // 9), -(-size[1] // 9)), dtype=np.uint8)
    labels = labels.repeat(9, 0).repeat(9, 1)[: size[0], : size[1]]
    reach = max(1, round(0.02 * np.hypot(*size)))

    found = near_outlines(labels)

    for index in range(4):
        mask = labels == index
        assert np.array_equal(found & mask, mask & ~_eroded(mask, reach))


def test_counts_add_up_and_absent_classes_have_none():
    """Equal masks have 1, a shifted one less than its IU, and a class that is absent NaN."""
    truth = np.zeros((60, 80), np.uint8)
    truth[20:50, 20:60] = 1
    truth[:5] = 255
    shifted = np.roll(truth, 2, axis=1)

    same = BoundaryCounts.of(truth, np.where(truth == 255, 0, truth), 3)
    moved = BoundaryCounts.of(truth, np.where(shifted == 255, 0, shifted), 3)

    assert same.class_iu[:2].tolist() == [1, 1]
    assert np.isnan(same.class_iu[2])
    union = ((truth == 1) | (shifted == 1)).sum()
    assert moved.class_iu[1] < ((truth == 1) & (shifted == 1)).sum() / union
    both = same + moved
    assert np.array_equal(both.truth, 2 * same.truth)
    assert np.array_equal(both.hits, same.hits + moved.hits)


def test_an_outline_between_wrong_classes_is_no_hit():
    """Two classes in each other's place have the same outlines, and nothing in common."""
    truth = np.zeros((40, 50), np.uint8)
    truth[:, 25:] = 1

    found = BoundaryCounts.of(truth, 1 - truth, 2)

    assert found.hits.tolist() == [0, 0]
    assert found.truth.tolist() == found.predicted[::-1].tolist()


def test_the_border_is_an_outline_of_every_class():
    """An image that is all of the last of 255 classes has its border for an outline."""
    labels = np.full((20, 30), 254, np.uint8)
    assert BoundaryCounts.of(labels, labels, 255).class_iu[254] == 1
