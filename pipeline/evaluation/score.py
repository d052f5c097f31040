"""Scoring: masks against ground truth, image by image, exact over any number of workers."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, TypedDict

import matplotlib.figure
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fcn.boundary import BoundaryCounts
from fcn.metrics import ConfusionMatrix
from pipeline.errors import BrokenPromise, InputError
from pipeline.images.ground_truth import Coding, TruthError, decode_truth
from pipeline.images.masks import decode_mask
from pipeline.store.storage import Storage

IMAGE_SCORES = pa.schema(
    [
        ("image_uri", pa.string()),
        ("truth_uri", pa.string()),
        ("mask_uri", pa.string()),
        ("num_pixels", pa.int64()),
        ("pixel_accuracy", pa.float64()),
        ("mean_accuracy", pa.float64()),
        ("mean_iu", pa.float64()),
        ("frequency_weighted_iu", pa.float64()),
        ("class_iu", pa.list_(pa.float64())),
        ("mean_confidence", pa.float64()),
        # By class: pixels of the truth, of the mask, and in both.
        ("class_truth", pa.list_(pa.int64())),
        ("class_predicted", pa.list_(pa.int64())),
        ("class_hits", pa.list_(pa.int64())),
    ]
)

# Beyond so many classes the numbers in the cells can't be read.
_MAX_WITH_NUMBERS = 30


@dataclass(frozen=True)
class Scores:
    """What the masks of an evaluation are worth.

    Attributes:
        matrix: n_ij over all images.
        outlines: Pixels near outlines, over all images.
        images: A row of `IMAGE_SCORES` for each image, by URI.
    """

    matrix: ConfusionMatrix
    outlines: BoundaryCounts
    images: pa.Table


class Scored(TypedDict):
    """What is to be compared: three URIs and the mean confidence per image, side by side."""

    image_uris: list[str]
    truth_uris: list[str]
    mask_uris: list[str]
    confidences: list[float | None]


@dataclass(frozen=True)
class Score:
    """Compares chunks of masks with their ground truth; travels to tasks."""

    storage: Storage
    coding: Coding
    threads: int

    def __call__(self, chunk: Scored) -> dict[str, Any]:
        """Compare the masks of a chunk.

        Returns:
            `counts`: n_ij of the chunk; `boundary`: its `BoundaryCounts`, as lists; `images`: a
            row of `IMAGE_SCORES` for each.

        Raises:
            InputError: A truth is unreadable, or of another size than its image.
            BrokenPromise: A mask that the tables name is gone or damaged.
            StoreError: A truth is missing, or the store does not answer.
        """
        rows = list(zip(chunk["image_uris"], chunk["truth_uris"], chunk["mask_uris"], strict=True))
        with ThreadPoolExecutor(self.threads) as pool:
            found = list(pool.map(lambda row: self._compare(row[1], row[2]), rows))
        matrices = [matrix for matrix, _ in found]
        total = sum(matrices, ConfusionMatrix.zeros(self.coding.num_classes))
        outlines = reduce(add, (outline for _, outline in found))
        scores = [
            _row(uris, matrix) | {"mean_confidence": confidence}
            for uris, matrix, confidence in zip(rows, matrices, chunk["confidences"], strict=True)
        ]
        return {
            "counts": total.counts.tolist(),
            "boundary": {name: one.tolist() for name, one in vars(outlines).items()},
            "images": scores,
        }

    def _compare(self, truth_uri: str, mask_uri: str) -> tuple[ConfusionMatrix, BoundaryCounts]:
        mask = self._mask(mask_uri)
        try:
            truth = decode_truth(self.storage.read(truth_uri), self.coding)
        except TruthError as error:
            raise InputError(f"{truth_uri}: {error}") from error
        if truth.shape != mask.shape:
            raise InputError(
                f"{truth_uri} is {truth.shape}, its image is {mask.shape} (height, width); a truth "
                "has the size of the upright image"
            )
        number = self.coding.num_classes
        return ConfusionMatrix.of(truth, mask, number), BoundaryCounts.of(truth, mask, number)

    def _mask(self, uri: str) -> NDArray[np.uint8]:
        data = self.storage.find(uri)
        if data is None:
            raise BrokenPromise(_broken(uri, "is gone"))
        try:
            return decode_mask(data)
        except ValueError as error:
            raise BrokenPromise(_broken(uri, f"can't be read: {error}")) from error


def _broken(uri: str, what: str) -> str:
    return (
        f"mask {uri} {what}, and a finished run names it: `fcn verify` lists all that is broken. "
        "Remove the run's folders runs/RUN, masks/run=RUN, images/run=RUN and "
        "class_statistics/run=RUN and evaluate again"
    )


def _row(uris: tuple[str, str, str], matrix: ConfusionMatrix) -> dict[str, Any]:
    metrics = matrix.metrics()
    return {
        **dict(zip(("image_uri", "truth_uri", "mask_uri"), uris, strict=True)),
        "num_pixels": metrics.num_pixels,
        "pixel_accuracy": metrics.pixel_accuracy,
        "mean_accuracy": metrics.mean_accuracy,
        "mean_iu": metrics.mean_iu,
        "frequency_weighted_iu": metrics.frequency_weighted_iu,
        "class_iu": metrics.class_iu.tolist(),
        "class_truth": matrix.counts.sum(axis=1).tolist(),
        "class_predicted": matrix.counts.sum(axis=0).tolist(),
        "class_hits": matrix.counts.diagonal().tolist(),
    }


def confusion_table(matrix: ConfusionMatrix, names: Sequence[str]) -> pa.Table:
    """Lay a confusion matrix out as a table: one row per pair of classes.

    Args:
        matrix: n_ij.
        names: Of the classes.
    """
    number = len(names)
    truth, predicted = np.divmod(np.arange(number**2), number)
    return pa.table(
        {
            "truth_id": pa.array(truth, pa.int32()),
            "truth_name": [names[index] for index in truth],
            "predicted_id": pa.array(predicted, pa.int32()),
            "predicted_name": [names[index] for index in predicted],
            "num_pixels": pa.array(matrix.counts.ravel(), pa.int64()),
        }
    )


def confusion_picture(matrix: ConfusionMatrix, names: Sequence[str], title: str) -> bytes:
    """Draw a confusion matrix: of the pixels of each class, the share that is predicted as which.

    Args:
        matrix: n_ij.
        names: Of the classes.
        title: Above it.

    Returns:
        A PNG file.
    """
    counts = matrix.counts
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    side = max(5.0, 0.55 * len(names) + 2)
    figure = matplotlib.figure.Figure((side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    axes.set(title=title, xlabel="predicted", ylabel="truth")
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    figure.colorbar(image, label="share of the class's pixels", shrink=0.8)
    if len(names) <= _MAX_WITH_NUMBERS:
        for (row, column), share in np.ndenumerate(shares):
            colour = "white" if share > 0.5 else "black"
            text = "" if np.isnan(share) or share < 0.005 else f"{share:.2f}".lstrip("0")
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
