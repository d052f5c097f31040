"""Bootstrap intervals and calibration, against what is known of made-up images."""

import numpy as np
import pytest

from pipeline.evaluation.intervals import calibration_error, mean_iu_interval


def _images(hits: np.ndarray) -> np.ndarray:
    """Make images of two classes of 100 pixels each, of which some are right."""
    total = np.full_like(hits, 100)
    wrong = total - hits
    predicted = hits + wrong[:, ::-1]
    return np.stack([total, predicted, hits], axis=1).astype(float)


def test_the_interval_is_that_of_the_spread():
    """Equal images have no spread; the interval shrinks with the root of their number."""
    random = np.random.default_rng(1)
    same = mean_iu_interval(_images(np.full((50, 2), 80)))
    few, many = (
        mean_iu_interval(_images(random.integers(60, 100, (number, 2)))) for number in (40, 640)
    )

    assert same is not None
    assert few is not None
    assert many is not None
    assert same[0] == same[1] == pytest.approx(80 / 120)
    assert few[0] < 0.66 < few[1]
    assert (few[1] - few[0]) / (many[1] - many[0]) == pytest.approx(4, rel=0.4)
    assert mean_iu_interval(_images(np.full((50, 2), 80))) == same
    assert mean_iu_interval(np.zeros((3, 3, 2))) is None


def test_the_interval_holds_95_percent_of_the_draws():
    """It is as wide as 1.96 standard deviations to either side, by draws of our own."""
    counts = _images(np.random.default_rng(2).integers(60, 100, (200, 2)))
    drawn = np.random.default_rng(3).integers(0, 200, (2000, 200))
    truth, predicted, hits = np.moveaxis(counts[drawn].sum(1), 1, 0)
    mean_iu = (hits / (truth + predicted - hits)).mean(1)

    least, most = mean_iu_interval(counts)

    assert most - least == pytest.approx(2 * 1.96 * mean_iu.std(), rel=0.1)
    assert (least + most) / 2 == pytest.approx(mean_iu.mean(), abs=0.1 * mean_iu.std())


def test_images_of_one_group_are_drawn_together():
    """Ten alike images of each of four drives are four observations, and the interval says so."""
    hits = np.array([[60, 60], [70, 70], [80, 80], [95, 95]]).repeat(10, axis=0)
    drives = [f"drive{index}" for index in range(4) for _ in range(10)]

    apart, together = mean_iu_interval(_images(hits)), mean_iu_interval(_images(hits), drives)

    assert together[1] - together[0] > 2 * (apart[1] - apart[0])


def test_calibration_is_the_gap_in_bins():
    """Sure images that are right cost nothing, and overconfidence costs its share of the pixels.

    Within a bin, who is better than expected makes up for who is worse.
    """
    confidence = np.array([0.95, 0.95, 0.55, np.nan])
    accuracy = np.array([0.92, 0.98, 0.25, 0.1])
    pixels = np.array([100.0, 100.0, 200.0, 1000.0])

    assert calibration_error(confidence, accuracy, pixels) == pytest.approx(0.5 * 0.3)
    assert np.isnan(calibration_error(confidence[3:], accuracy[3:], pixels[3:]))


def test_one_image_or_one_drive_has_no_interval():
    """Drawn again and again it is always itself, and says nothing of others."""
    hits = np.array([[90, 80], [60, 70]])
    assert mean_iu_interval(_images(hits), ["one", "another"]) is not None
    assert mean_iu_interval(_images(hits), ["one", "one"]) is None
    assert mean_iu_interval(_images(hits[:1])) is None
