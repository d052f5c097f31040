"""The metrics: exact counts that add up, the paper's numbers from them, wrong masks refused."""

import json
import math
import pickle
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image

from fcn.metrics import _CHUNK_PIXELS, ConfusionMatrix, Metrics
from jobs.demo.scenes import CLASSES, draw_scene

_NUM_CLASSES = 4
_FACTORS = (128, 64, 32, 16, 8, 4)

# Three pixels of class 0 are right and one is taken for class 1; of class 1 two are right, one is
# taken for class 0 and one for class 2; the one pixel of class 2 is taken for class 0.
_EXAMPLE = [[3, 1, 0], [1, 2, 1], [1, 0, 0]]

Mask = NDArray[np.uint8]
Pair = tuple[Mask, Mask]


@st.composite
def _pairs(draw: st.DrawFn) -> Pair:
    """Draw a truth with ignored pixels and a prediction, of any shape, empty ones too."""
    shape = draw(array_shapes(max_dims=3, max_side=9, min_side=0))
    labels = st.sampled_from([*range(_NUM_CLASSES), 255])
    guesses = st.integers(0, _NUM_CLASSES - 1)
    return draw(arrays(np.uint8, shape, elements=labels)), draw(
        arrays(np.uint8, shape, elements=guesses)
    )


def _of(truth: Any, prediction: Any, num_classes: int = _NUM_CLASSES) -> ConfusionMatrix:
    return ConfusionMatrix.of(truth, prediction, num_classes)


def _pixels(truth: Mask, prediction: Mask) -> list[tuple[int, int]]:
    found = zip(truth.flatten().tolist(), prediction.flatten().tolist(), strict=True)
    return [(label, guess) for label, guess in found if label != 255]


def _slow_counts(truth: Mask, prediction: Mask, num_classes: int) -> list[list[int]]:
    """Count pixel by pixel."""
    counts = [[0] * num_classes for _ in range(num_classes)]
    for label, guess in _pixels(truth, prediction):
        counts[label][guess] += 1
    return counts


def _slow_class_shares(pixels: list[tuple[int, int]], index: int) -> tuple[Fraction, Fraction]:
    """Return accuracy and IU of a class as sets of pixels: what is hit over truth, over union."""
    labelled = {place for place, (label, _) in enumerate(pixels) if label == index}
    guessed = {place for place, (_, guess) in enumerate(pixels) if guess == index}
    hits = len(labelled & guessed)
    return Fraction(hits, len(labelled)), Fraction(hits, len(labelled | guessed))


def _mean(values: Iterable[Fraction]) -> float:
    numbers = list(values)
    return float(sum(numbers) / len(numbers)) if numbers else math.nan


def _four(metrics: Metrics) -> list[float]:
    return [
        metrics.pixel_accuracy,
        metrics.mean_accuracy,
        metrics.mean_iu,
        metrics.frequency_weighted_iu,
    ]


def test_the_example_by_hand() -> None:
    """Four metrics and the shares of every class are those computed by hand."""
    truth = np.array([[0, 0, 0], [0, 1, 1], [1, 1, 2], [255, 255, 255]], np.uint8)
    prediction = np.array([[0, 0, 0], [1, 1, 1], [0, 2, 0], [0, 1, 2]], np.uint8)
    matrix = _of(truth, prediction, 3)
    assert matrix.counts.tolist() == _EXAMPLE
    metrics = matrix.metrics()
    assert (matrix.num_pixels, metrics.num_pixels, metrics.absent_classes) == (9, 9, ())
    # The unions are 4 + 5 - 3 = 6, 4 + 3 - 2 = 5 and 1 + 1 - 0 = 2.
    np.testing.assert_allclose(metrics.class_accuracy, [3 / 4, 2 / 4, 0], rtol=1e-15)
    np.testing.assert_allclose(metrics.class_iu, [3 / 6, 2 / 5, 0], rtol=1e-15)
    assert metrics.class_iu.dtype == metrics.class_accuracy.dtype == np.float64
    expected = [5 / 9, (3 / 4 + 2 / 4) / 3, (3 / 6 + 2 / 5) / 3, (4 * 3 / 6 + 4 * 2 / 5) / 9]
    assert _four(metrics) == pytest.approx(expected, rel=1e-15)


@given(_pairs())
def test_counts_are_those_of_a_plain_loop(pair: Pair) -> None:
    """The counts are what counting pixel by pixel gives, without the ignored pixels."""
    matrix = _of(*pair)
    assert matrix.counts.tolist() == _slow_counts(*pair, _NUM_CLASSES)
    assert matrix.counts.dtype == np.int64
    assert matrix.num_pixels == np.count_nonzero(pair[0] != 255)


@given(_pairs())
def test_metrics_are_those_of_sets_of_pixels(pair: Pair) -> None:
    """All metrics are what sets of pixels and exact fractions give, over the present classes."""
    pixels = _pixels(*pair)
    present = sorted({label for label, _ in pixels})
    shares = {index: _slow_class_shares(pixels, index) for index in present}
    metrics = _of(*pair).metrics()
    expected = [
        _mean(Fraction(label == guess) for label, guess in pixels),
        _mean(accuracy for accuracy, _ in shares.values()),
        _mean(iu for _, iu in shares.values()),
        _mean(shares[label][1] for label, _ in pixels),
    ]
    assert _four(metrics) == pytest.approx(expected, rel=1e-12, nan_ok=True)
    for index in range(_NUM_CLASSES):
        found = (metrics.class_accuracy[index], metrics.class_iu[index])
        wanted = tuple(map(float, shares.get(index, (math.nan, math.nan))))
        assert found == pytest.approx(wanted, rel=1e-12, nan_ok=True)
    assert metrics.absent_classes == tuple(sorted(set(range(_NUM_CLASSES)) - set(present)))


@given(st.data(), _pairs())
def test_matrices_add_up_over_any_split(data: st.DataObject, pair: Pair) -> None:
    """However pixels are split and in whatever order the parts are added, the sum is the same."""
    truth, prediction = pair[0].ravel(), pair[1].ravel()
    cuts = data.draw(st.lists(st.integers(0, truth.size), max_size=5))
    edges = [0, *sorted(cuts), truth.size]
    parts = [_of(truth[a:b], prediction[a:b]) for a, b in pairwise(edges)]
    shuffled = data.draw(st.permutations(parts))
    assert sum(shuffled, ConfusionMatrix.zeros(_NUM_CLASSES)) == _of(*pair)
    assert sum(shuffled) == _of(*pair)


@pytest.mark.parametrize("layout", ["rows", "columns", "strided", "reversed"])
def test_a_large_image_is_counted_whole(layout: str) -> None:
    """An image of more pixels than are counted at a time loses none, in any memory layout."""
    random = np.random.default_rng(0)
    shape = (701, 5 * _CHUNK_PIXELS // 701)
    truth = random.integers(0, 6, shape, np.uint8)
    prediction = random.integers(0, 5, shape, np.uint8)
    truth[truth == 5] = 255
    expected = _slow_counts(truth, prediction, 5)
    if layout == "columns":
        truth, prediction = np.asfortranarray(truth), np.ascontiguousarray(prediction)
    if layout == "strided":
        wide = np.full((*shape, 3), 77, np.uint8)
        wide[..., 1] = truth
        truth = wide[..., 1]
    if layout == "reversed":
        truth, prediction = truth[::-1, ::-1], np.ascontiguousarray(prediction[::-1, ::-1])
    assert _of(truth, prediction, 5).counts.tolist() == expected


def test_memory_does_not_grow_with_the_image() -> None:
    """Counting 25 million pixels needs less than one more byte for each of them."""
    mask = np.zeros((5000, 5000), np.uint8)
    tracemalloc.start()
    try:
        matrix = _of(mask, mask, 21)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert matrix.counts[0, 0] == mask.size
    assert peak < mask.size


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", ">i4", "i8", "u8"])
@pytest.mark.parametrize("shape", [(), (4,), (1, 4), (2, 1, 2)])
def test_any_integers_of_any_shape_are_counted(dtype: str, shape: tuple[int, ...]) -> None:
    """Integers of every dtype and shape give the same counts as uint8 masks."""
    truth, prediction = np.array([0, 2, 2, 1]), np.array([1, 2, 0, 1])
    if not shape:
        truth, prediction = truth[1], prediction[1]
    expected = _of(truth.astype(np.uint8), prediction.astype(np.uint8), 3)
    mixed = truth.astype(dtype).reshape(shape), prediction.astype(np.uint8).reshape(shape)
    assert expected.num_pixels == truth.size
    assert _of(*mixed, 3) == expected
    assert _of(mixed[0], prediction.astype(dtype).reshape(shape), 3) == expected


def test_ignored_pixels_count_nowhere() -> None:
    """Where the truth is 255 nothing is counted, whatever is predicted there, 255 included."""
    truth = np.array([[0, 255, 1], [255, 255, 1]], np.uint8)
    prediction = np.array([[0, 0, 1], [255, 77, 0]], np.uint8)
    assert _of(truth, prediction, 2).counts.tolist() == [[1, 0], [1, 1]]


@pytest.mark.parametrize("ignore_index", [-1, 3, 254, 65535])
def test_another_value_can_be_ignored(ignore_index: int) -> None:
    """The ignored value is the one that is said, and 255 is then refused like any other."""
    truth = np.array([0, ignore_index, 2], np.int64)
    prediction = np.array([0, 1, 1], np.uint8)
    matrix = ConfusionMatrix.of(truth, prediction, 3, ignore_index=ignore_index)
    assert matrix.counts.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]
    with pytest.raises(ValueError, match="truth holds 255"):
        ConfusionMatrix.of(np.array([255]), prediction[:1], 3, ignore_index=ignore_index)


@pytest.mark.parametrize("num_classes", [1, 2, 255])
def test_a_perfect_prediction_scores_one(num_classes: int) -> None:
    """With the truth as the prediction all metrics are 1, for the fewest and the most classes."""
    truth = np.arange(num_classes, dtype=np.uint8).repeat(3)
    metrics = _of(truth, truth, num_classes).metrics()
    assert _four(metrics) == [1, 1, 1, 1]
    assert metrics.class_iu.tolist() == metrics.class_accuracy.tolist() == [1] * num_classes


@given(_pairs())
def test_the_weighted_iu_is_the_mean_over_pixels(pair: Pair) -> None:
    """F.w. IU is the mean, over the pixels, of their class's IU, and at most pixel accuracy."""
    metrics = _of(*pair).metrics()
    assume(metrics.num_pixels)
    per_pixel = metrics.class_iu[pair[0][pair[0] != 255]]
    assert metrics.frequency_weighted_iu == pytest.approx(per_pixel.mean(), rel=1e-12)
    assert metrics.frequency_weighted_iu <= metrics.pixel_accuracy * (1 + 1e-12)
    assert metrics.mean_iu <= metrics.mean_accuracy * (1 + 1e-12)


def test_the_weighted_iu_of_equal_classes_is_the_mean() -> None:
    """When all classes have equally many pixels, weighting by frequency changes nothing."""
    truth = np.arange(5, dtype=np.uint8).repeat(1000)
    prediction = np.random.default_rng(0).integers(0, 5, truth.size, np.uint8)
    metrics = _of(truth, prediction, 5).metrics()
    assert metrics.frequency_weighted_iu == pytest.approx(metrics.mean_iu, rel=1e-12)
    assert metrics.pixel_accuracy == pytest.approx(metrics.mean_accuracy, rel=1e-12)


def test_classes_that_appear_nowhere_change_nothing() -> None:
    """Classes that are neither in the truth nor predicted are NaN and leave the means alone."""
    counts = np.zeros((5, 5), np.int64)
    counts[np.ix_([0, 2, 3], [0, 2, 3])] = _EXAMPLE
    metrics, without = ConfusionMatrix(counts).metrics(), ConfusionMatrix(_EXAMPLE).metrics()
    assert _four(metrics) == _four(without)
    assert metrics.absent_classes == (1, 4)
    assert np.isnan(metrics.class_iu).tolist() == [False, True, False, False, True]
    assert np.isnan(metrics.class_accuracy).tolist() == [False, True, False, False, True]


def test_a_class_that_is_only_predicted_is_left_out() -> None:
    """A class without truth is NaN; its false positives count against those they belong to."""
    truth = np.array([0, 0, 0, 0, 1, 1], np.uint8)
    prediction = np.array([0, 0, 0, 2, 1, 1], np.uint8)
    metrics = _of(truth, prediction, 3).metrics()
    assert metrics.absent_classes == (2,)
    np.testing.assert_equal(metrics.class_iu, [0.75, 1, np.nan])
    np.testing.assert_equal(metrics.class_accuracy, [0.75, 1, np.nan])
    assert _four(metrics) == pytest.approx([5 / 6, 1.75 / 2, 1.75 / 2, (4 * 0.75 + 2) / 6])


@pytest.mark.parametrize(
    "matrix",
    [
        ConfusionMatrix.zeros(3),
        _of(np.full((4, 4), 255, np.uint8), np.zeros((4, 4), np.uint8), 3),
        _of(np.zeros((0, 7), np.uint8), np.zeros((0, 7), np.uint8), 3),
    ],
    ids=["zeros", "all ignored", "no pixels"],
)
def test_without_pixels_there_is_no_share(matrix: ConfusionMatrix) -> None:
    """A matrix without pixels has NaN for every metric, and nothing warns."""
    assert matrix == ConfusionMatrix.zeros(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = matrix.metrics()
    assert np.isnan([*_four(metrics), *metrics.class_iu, *metrics.class_accuracy]).all()
    assert (metrics.num_pixels, metrics.absent_classes) == (0, (0, 1, 2))


def test_sums_are_exact_beyond_what_floats_hold() -> None:
    """Adding stays exact to the last pixel beyond 2^31 and beyond 2^53."""
    for size in (2**31 - 1, 2**53):
        large = ConfusionMatrix([[size, 1], [0, size]])
        total = large + ConfusionMatrix([[1, 0], [0, 0]]) + large
        assert total.counts.tolist() == [[2 * size + 1, 2], [0, 2 * size]]
        assert total.num_pixels == 4 * size + 3
        assert total.metrics().pixel_accuracy == pytest.approx(1)


def test_a_sum_that_does_not_fit_is_refused() -> None:
    """More pixels than 64 bits add up exactly are an error, never a wrong number."""
    largest = ConfusionMatrix([[2**61, 0], [0, 0]])
    assert largest.num_pixels == 2**61
    with pytest.raises(ValueError, match=rf"sum to 4\.61e\+18; .* up to {2**61} pixels"):
        _ = largest + largest
    with pytest.raises(ValueError, match="exact are up to"):
        ConfusionMatrix(np.full((2, 2), 2**63, np.uint64))


def test_a_matrix_survives_json_pickle_and_arrays() -> None:
    """A matrix is read back as it was, through nested lists, bytes and arrays of any integers."""
    matrix = ConfusionMatrix(_EXAMPLE)
    assert ConfusionMatrix(json.loads(json.dumps(matrix.counts.tolist()))) == matrix
    assert ConfusionMatrix(matrix.counts) == matrix
    assert ConfusionMatrix(matrix.counts.astype(np.uint16)) == matrix
    assert pickle.loads(pickle.dumps(matrix)) == matrix
    assert repr(matrix) == f"ConfusionMatrix({_EXAMPLE})"


def test_matrices_are_equal_by_their_counts() -> None:
    """Matrices with other counts, of other size, or no matrices at all are not equal."""
    matrix = ConfusionMatrix(_EXAMPLE)
    assert matrix == ConfusionMatrix(_EXAMPLE)
    assert matrix != ConfusionMatrix(np.transpose(_EXAMPLE))
    assert ConfusionMatrix.zeros(2) != ConfusionMatrix.zeros(3)
    assert matrix != _EXAMPLE


def test_a_matrix_does_not_change() -> None:
    """Neither the array it was made from, nor its own, nor adding to it changes a matrix."""
    source = np.array(_EXAMPLE)
    matrix = ConfusionMatrix(source)
    source[0, 0] = 99
    total = matrix
    total += matrix
    with pytest.raises(ValueError, match="read-only"):
        matrix.counts[0, 0] = 99
    assert matrix.counts.tolist() == _EXAMPLE
    assert total.counts.tolist() == (2 * np.array(_EXAMPLE)).tolist()


@pytest.mark.parametrize("value", [3, 77, 254, -1, 1000])
def test_a_truth_that_is_no_class_is_refused(value: int) -> None:
    """A truth outside of the classes that is not ignored is an error with all that is needed."""
    truth = np.zeros((20, 30), np.int64)
    truth[4, 5:9] = value
    message = (
        rf"truth holds {value} and is outside of 0 to 2 in 4 of 600 pixels;"
        " map what has no class to ignore_index=255, or raise num_classes"
    )
    with pytest.raises(ValueError, match=message):
        _of(truth, np.zeros((20, 30), np.uint8), 3)


@pytest.mark.parametrize("value", [3, 255, -1])
def test_a_prediction_that_is_no_class_is_refused(value: int) -> None:
    """A prediction outside of the classes is an error, the ignore index too, unless ignored."""
    truth = np.zeros((2, 3), np.uint8)
    truth[0, 0] = 255
    prediction = np.full((2, 3), value)
    prediction[1, 2] = 0
    message = rf"prediction holds {value} and is outside of 0 to 2 in 4 of 6 pixels; every pixel"
    with pytest.raises(ValueError, match=message):
        _of(truth, prediction, 3)


def test_wrong_pixels_are_counted_in_the_whole_image() -> None:
    """The number of wrong pixels is that of the whole image, however large it is."""
    truth = np.zeros(3 * _CHUNK_PIXELS, np.uint8)
    truth[[5, -1]] = 7
    with pytest.raises(ValueError, match=f"truth holds 7 .* in 2 of {truth.size} pixels"):
        _of(truth, np.zeros_like(truth), 3)


@pytest.mark.parametrize(
    ("truth", "prediction", "num_classes", "message"),
    [
        (np.zeros((2, 3), "u1"), np.zeros((3, 2), "u1"), 3, r"shape \(2, 3\), prediction \(3, 2\)"),
        (np.zeros((2, 3), "u1"), np.zeros(3, "u1"), 3, r"shape \(2, 3\), prediction \(3,\)"),
        (np.zeros(3, "f4"), np.zeros(3, "u1"), 3, "truth is float32; class indices are integers"),
        (np.zeros(3, "u1"), np.zeros(3, "f8"), 3, "prediction is float64; .* argmax of scores"),
        (np.zeros(3, "u1"), np.zeros(3, bool), 3, "prediction is bool"),
        (np.zeros(3, "u1"), np.zeros(3, "u1"), 0, "num_classes=0; it is 1 or more"),
        (np.zeros(3, "u1"), np.zeros(3, "u1"), 256, "ignore_index=255 is one of the 256 classes"),
    ],
)
def test_masks_that_do_not_fit_are_refused(
    truth: Any, prediction: Any, num_classes: int, message: str
) -> None:
    """Other shapes, floating-point or boolean masks and impossible classes are errors."""
    with pytest.raises(ValueError, match=message):
        _of(truth, prediction, num_classes)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([], r"shape \(0,\)"),
        (np.zeros((0, 0), np.int64), r"shape \(0, 0\)"),
        ([1, 2], r"shape \(2,\)"),
        ([[1, 2]], r"shape \(1, 2\)"),
        ([[1.0]], "counts are float64"),
        ([[True]], "counts are bool"),
        ([[1, 0], [-2, 0]], "counts go down to -2"),
    ],
)
def test_counts_that_are_none_are_refused(counts: Any, message: str) -> None:
    """What is no square of numbers of pixels makes no matrix."""
    with pytest.raises(ValueError, match=message):
        ConfusionMatrix(counts)


def test_only_matrices_of_the_same_classes_add_up() -> None:
    """Matrices of other classes and things that are no matrices are not added."""
    with pytest.raises(ValueError, match="matrices of 2 and 3 classes don't add up"):
        _ = ConfusionMatrix.zeros(2) + ConfusionMatrix.zeros(3)
    for other in (1, 0.0, "", [[0, 0], [0, 0]]):
        with pytest.raises(TypeError):
            _ = other + ConfusionMatrix.zeros(2)
    with pytest.raises(TypeError):
        _ = ConfusionMatrix.zeros(2) + 1  # type: ignore[operator]
    with pytest.raises(ValueError, match="num_classes=0"):
        ConfusionMatrix.zeros(0)


def test_no_torch_is_loaded() -> None:
    """Importing the metrics loads no torch, so that figures are summed up without it."""
    code = "import fcn.metrics, sys; sys.exit('torch' in sys.modules)"
    folder = Path(__file__).parent.parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=folder, check=False).returncode == 0


def _coarse(mask: Mask, factor: int) -> Mask:
    """Sample a mask down and up again by nearest neighbour: each cell takes its middle pixel."""
    rows, columns = (
        np.minimum(np.arange(side) // factor * factor + factor // 2, side - 1)
        for side in mask.shape
    )
    return mask[np.ix_(rows, columns)]


def _upper_bounds(masks: list[Mask], num_classes: int) -> list[float]:
    """Return the mean IU of masks against themselves at each of the paper's factors."""
    return [
        sum(_coarse_matrix(mask, factor, num_classes) for mask in masks).metrics().mean_iu
        for factor in _FACTORS
    ]


def _coarse_matrix(mask: Mask, factor: int, num_classes: int) -> ConfusionMatrix:
    coarse = _coarse(mask, factor)
    # A prediction has no ignored pixels. One more class, which the truth lacks, takes them.
    return _of(mask, np.where(coarse == 255, np.uint8(num_classes), coarse), num_classes + 1)


def _camvid_masks(folder: Path) -> Iterator[Mask]:
    for path in sorted(folder.glob("*/masks/*.png"))[::12]:
        with Image.open(path) as picture:
            yield np.asarray(picture)


def test_upper_bounds_fall_with_the_stride_on_drawn_scenes() -> None:
    """The coarser drawn masks are, the lower their mean IU, as in section 1.8 of the reference."""
    masks = [draw_scene(seed, 375, 500)[1] for seed in range(24)]
    bounds = _upper_bounds(masks, len(CLASSES))
    assert all(coarse < fine for coarse, fine in pairwise(bounds))
    assert bounds[-1] > 0.95


def test_upper_bounds_fall_with_the_stride_on_photographs(camvid: Path) -> None:
    """The coarser CamVid's masks are, the lower their mean IU, in the order of the paper's."""
    bounds = _upper_bounds(list(_camvid_masks(camvid)), 11)
    assert len(bounds) == len(_FACTORS)
    assert all(coarse < fine for coarse, fine in pairwise(bounds))
