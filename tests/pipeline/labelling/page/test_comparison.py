"""How far runs are from each other."""

import pytest

from pipeline.labelling.page.comparison import jensen_shannon


def test_the_distance_of_what_is_alike_is_nothing() -> None:
    """Weights of another sum are the same distribution."""
    assert jensen_shannon([1, 2, 0], [2, 4, 0]) == pytest.approx(0, abs=1e-9)


def test_the_distance_of_what_shares_nothing_is_one() -> None:
    """Distributions without a common value are as far apart as can be."""
    assert jensen_shannon([1, 0, 3], [0, 5, 0]) == pytest.approx(1)


def test_the_distance_is_the_published_one() -> None:
    """It is what the definition gives, written out for two values, and the same both ways."""
    # Half of 1 log2(1 / 0.75) + 0.5 log2(0.5 / 0.75) + 0.5 log2(0.5 / 0.25), and its root.
    assert jensen_shannon([1, 0], [1, 1]) == pytest.approx(0.5579230452841438)
    assert jensen_shannon([1, 1], [1, 0]) == pytest.approx(0.5579230452841438)
