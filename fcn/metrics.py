"""The paper's four metrics, from a confusion matrix that adds up over images, shards and machines.

Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation" (CVPR 2015),
section 5: n_ij is the number of pixels of class i that are predicted as class j, counted over the
whole data set. NumPy only, so that an evaluation can be summed up where no torch is installed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fcn.weights.record import IGNORE_INDEX

# Pixels counted at a time, which stays in the cache: some 30 bytes for each beside the masks.
_CHUNK_PIXELS = 1 << 16

# Two matrices of this many pixels still add up without overflow.
_MAX_PIXELS = 1 << 61


@dataclass(frozen=True, eq=False)
class Metrics:
    """How well predictions match the truth; all shares are between 0 and 1.

    A class is absent when the truth has no pixel of it. Absent classes are NaN in the arrays and
    left out of both means, even when they are predicted somewhere: what is wrongly given to them
    lowers the accuracy and the IU of the classes that it was taken from, and nothing else.
    (score.py takes the mean over absent classes too if they are predicted, with an IU of 0, so
    that one stray pixel costs as much as a class that is missed altogether.)
    Without any pixel every share is NaN.

    Attributes:
        num_pixels: Pixels with a class in the truth; ignored ones are not counted.
        pixel_accuracy: sum_i n_ii / sum_i t_i, where t_i = sum_j n_ij.
        mean_accuracy: Mean of `class_accuracy` over the present classes.
        mean_iu: Mean of `class_iu` over the present classes (mIoU).
        frequency_weighted_iu: sum_i t_i IU_i / sum_i t_i (f.w. IU).
        class_accuracy: n_ii / t_i, float64 of shape (num_classes,), NaN for absent classes.
        class_iu: IU_i = n_ii / (t_i + sum_j n_ji - n_ii), float64 of shape (num_classes,), NaN
            for absent classes.
        absent_classes: Indices of the classes without a pixel in the truth, in order.
    """

    num_pixels: int
    pixel_accuracy: float
    mean_accuracy: float
    mean_iu: float
    frequency_weighted_iu: float
    class_accuracy: NDArray[np.float64]
    class_iu: NDArray[np.float64]
    absent_classes: tuple[int, ...]


class ConfusionMatrix:
    """Pixels of class i (the truth) that are predicted as class j; never changed, only added.

    Matrices of batches, shards and machines add up exactly to that of all their pixels, in any
    order: `a + b`, or `sum(matrices, ConfusionMatrix.zeros(num_classes))` for any number of them.
    `ConfusionMatrix(matrix.counts.tolist())` is the way through JSON and Parquet.
    """

    def __init__(self, counts: ArrayLike) -> None:
        """Take counts that are known.

        Args:
            counts: n_ij, integers from 0 of shape (num_classes, num_classes): an array or nested
                lists. They are copied.

        Raises:
            ValueError: They have another shape or dtype, are negative, or sum to more than 2^61.
        """
        given = np.asarray(counts)
        if given.ndim != 2 or given.shape[0] != given.shape[1] or not given.size:
            raise ValueError(f"counts have the shape {given.shape}; it is (classes, classes)")
        if not np.issubdtype(given.dtype, np.integer):
            raise ValueError(f"counts are {given.dtype}; pixels are counted in integers")
        if given.min() < 0:
            raise ValueError(f"counts go down to {given.min()}; numbers of pixels start at 0")
        # In floating point, which can't overflow: the sum itself may not fit into 64 bits.
        if given.sum(dtype=np.float64) > _MAX_PIXELS:
            raise ValueError(
                f"counts sum to {given.sum(dtype=np.float64):.3g}; exact are up to {_MAX_PIXELS}"
                " pixels: keep separate matrices"
            )
        self._counts = given.astype(np.int64)
        self._counts.flags.writeable = False

    @staticmethod
    def zeros(num_classes: int) -> "ConfusionMatrix":
        """Return the matrix without pixels, where sums start.

        Args:
            num_classes: Background included, from 1.

        Raises:
            ValueError: There is no class.
        """
        _check_num_classes(num_classes)
        return ConfusionMatrix(np.zeros((num_classes, num_classes), np.int64))

    @staticmethod
    def of(
        truth: ArrayLike, prediction: ArrayLike, num_classes: int, ignore_index: int = IGNORE_INDEX
    ) -> "ConfusionMatrix":
        """Count the pixels of an image, or of a batch of them.

        `fast_hist` of the paper's score.py, with two differences: wrong values are refused where
        that drops them (or counts them as another class), and the memory needed beside the masks
        does not grow with them.

        Args:
            truth: Class indices from 0 to `num_classes` - 1, or `ignore_index`: uint8 of shape
                (H, W), or any integers of any shape.
            prediction: Class indices of the same shape. They are not looked at where the truth is
                `ignore_index`.
            num_classes: Background included, from 1.
            ignore_index: Value of the truth for pixels without a class; they are not counted.

        Raises:
            ValueError: The shapes differ, values are no integers, or are no class where one is
                needed: in the truth any value that is neither a class nor `ignore_index`, in the
                prediction `ignore_index` too.
        """
        _check_num_classes(num_classes)
        if 0 <= ignore_index < num_classes:
            raise ValueError(
                f"ignore_index={ignore_index} is one of the {num_classes} classes; take a value"
                " below 0 or above them, with a dtype that holds it"
            )
        masks = _class_indices("truth", truth), _class_indices("prediction", prediction)
        if masks[0].shape != masks[1].shape:
            raise ValueError(
                f"truth has the shape {masks[0].shape}, prediction {masks[1].shape}; bring the"
                " prediction to the size of the truth"
            )
        counts = np.zeros(num_classes**2, np.int64)
        for labels, guesses in _chunks(*masks, ignore_index):
            if not (_are_classes(labels, num_classes) and _are_classes(guesses, num_classes)):
                _refuse(*masks, num_classes, ignore_index)
            pairs = num_classes * labels.astype(np.int64) + guesses.astype(np.int64)
            counts += np.bincount(pairs, minlength=counts.size)
        return ConfusionMatrix(counts.reshape(num_classes, num_classes))

    @property
    def counts(self) -> NDArray[np.int64]:
        """n_ij, int64 of shape (num_classes, num_classes): truth in rows, prediction in columns.

        It can't be written to.
        """
        return self._counts

    @property
    def num_classes(self) -> int:
        """Number of classes, background included."""
        return len(self._counts)

    @property
    def num_pixels(self) -> int:
        """Number of pixels counted, without the ignored ones."""
        return int(self._counts.sum())

    def __add__(self, other: object) -> "ConfusionMatrix":
        """Return the matrix of the pixels of both. Raises ValueError if the classes differ."""
        if not isinstance(other, ConfusionMatrix):
            return NotImplemented
        if self.num_classes != other.num_classes:
            raise ValueError(
                f"matrices of {self.num_classes} and {other.num_classes} classes don't add up;"
                " both need the same list of classes"
            )
        return ConfusionMatrix(self._counts + other._counts)

    def __radd__(self, other: object) -> "ConfusionMatrix":
        # `sum` without a start begins at 0.
        return self if type(other) is int and other == 0 else NotImplemented

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConfusionMatrix):
            return NotImplemented
        return np.array_equal(self._counts, other._counts)

    __hash__ = None  # type: ignore[assignment]  # equal by value, and a matrix is no key

    def __repr__(self) -> str:
        return f"ConfusionMatrix({self._counts.tolist()})"

    def metrics(self) -> Metrics:
        """Compute the paper's metrics; absent classes are treated as `Metrics` says."""
        truth, hits = self._counts.sum(axis=1), self._counts.diagonal()
        union = truth + self._counts.sum(axis=0) - hits
        present = truth > 0
        class_accuracy, class_iu = np.full((2, self.num_classes), np.nan)
        class_accuracy[present] = hits[present] / truth[present]
        class_iu[present] = hits[present] / union[present]
        return Metrics(
            num_pixels=self.num_pixels,
            pixel_accuracy=_ratio(hits.sum(), truth.sum()),
            mean_accuracy=_ratio(class_accuracy[present].sum(), present.sum()),
            mean_iu=_ratio(class_iu[present].sum(), present.sum()),
            frequency_weighted_iu=_ratio((truth * class_iu)[present].sum(), truth.sum()),
            class_accuracy=class_accuracy,
            class_iu=class_iu,
            absent_classes=tuple(np.flatnonzero(~present).tolist()),
        )


def _ratio(part: Any, whole: Any) -> float:
    # Of nothing there is no share, and NumPy would warn.
    return float(part / whole) if whole else float("nan")


def _check_num_classes(num_classes: int) -> None:
    if num_classes < 1:
        raise ValueError(f"num_classes={num_classes}; it is 1 or more, background included")


def _class_indices(name: str, values: ArrayLike) -> NDArray[np.integer[Any]]:
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"{name} is {array.dtype}; class indices are integers, uint8 as a rule: take the"
            " argmax of scores, or cast it"
        )
    return array


def _chunks(
    truth: NDArray[np.integer[Any]], prediction: NDArray[np.integer[Any]], ignore_index: int
) -> Iterator[tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]]:
    """Walk through both masks together, in any memory layout, without the ignored pixels."""
    with np.nditer(
        (truth, prediction),
        flags=("external_loop", "buffered", "zerosize_ok"),
        buffersize=_CHUNK_PIXELS,
    ) as pieces:
        for labels, guesses in pieces:
            kept = labels != ignore_index
            yield labels[kept], guesses[kept]


def _are_classes(values: NDArray[np.integer[Any]], num_classes: int) -> bool:
    return not values.size or bool(values.min() >= 0 and values.max() < num_classes)


def _refuse(
    truth: NDArray[np.integer[Any]],
    prediction: NDArray[np.integer[Any]],
    num_classes: int,
    ignore_index: int,
) -> NoReturn:
    kept = truth != ignore_index
    wrong_truth = kept & ((truth < 0) | (truth >= num_classes))
    wrong_prediction = kept & ((prediction < 0) | (prediction >= num_classes))
    if wrong_truth.any():
        name, values, wrong = "truth", truth, wrong_truth
        remedy = f"map what has no class to ignore_index={ignore_index}, or raise num_classes"
    else:
        name, values, wrong = "prediction", prediction, wrong_prediction
        remedy = "every pixel that the truth has a class for needs one; or raise num_classes"
    raise ValueError(
        f"{name} holds {values[wrong][0]} and is outside of 0 to {num_classes - 1} in"
        f" {wrong.sum()} of {values.size} pixels; {remedy}"
    )
