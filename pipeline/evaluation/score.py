"""Scoring: masks against ground truth, image by image, exact over any number of workers."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, Literal, TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fcn.boundary import BoundaryCounts
from fcn.metrics import ConfusionMatrix
from pipeline.errors import BrokenPromise, InputError
from pipeline.images.ground_truth import Coding, TruthError, decode_truth
from pipeline.images.masks import decode_mask
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage

IMAGE_SCORES = pa.schema(
    [
        ("image_uri", pa.string()),
        ("truth_uri", pa.string()),
        ("mask_uri", pa.string()),
        ("mask_offset", pa.int64()),
        ("mask_bytes", pa.int64()),
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
    """What is to be compared: samples, their masks and the mean confidences, side by side."""

    image_uris: list[str]
    truth_uris: list[str]
    truth_offsets: list[int | None]
    truth_bytes: list[int | None]
    mask_uris: list[str]
    mask_offsets: list[int | None]
    mask_bytes: list[int | None]
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
        truths, masks = _extents(chunk, "truth"), _extents(chunk, "mask")
        with ThreadPoolExecutor(self.threads) as pool:
            found = list(pool.map(self._compare, truths, masks))
        matrices = [matrix for matrix, _ in found]
        total = sum(matrices, ConfusionMatrix.zeros(self.coding.num_classes))
        outlines = reduce(add, (outline for _, outline in found))
        scores = [
            _places(*places) | _row(matrix) | {"mean_confidence": confidence}
            for places, matrix, confidence in zip(
                *(zip(chunk["image_uris"], truths, masks, strict=True), matrices),
                chunk["confidences"],
                strict=True,
            )
        ]
        return {
            "counts": total.counts.tolist(),
            "boundary": {name: one.tolist() for name, one in vars(outlines).items()},
            "images": scores,
        }

    def _compare(self, place: Extent, of_mask: Extent) -> tuple[ConfusionMatrix, BoundaryCounts]:
        mask = self._mask(of_mask)
        try:
            truth = decode_truth(self.storage.read_extent(place), self.coding)
        except TruthError as error:
            raise InputError(f"{place}: {error}") from error
        if truth.shape != mask.shape:
            raise InputError(
                f"{place} is {truth.shape}, its image is {mask.shape} (height, width); a truth "
                "has the size of the upright image"
            )
        number = self.coding.num_classes
        return ConfusionMatrix.of(truth, mask, number), BoundaryCounts.of(truth, mask, number)

    def _mask(self, place: Extent) -> NDArray[np.uint8]:
        data = self.storage.find_extent(place)
        if data is None:
            raise BrokenPromise(_broken(place, "is gone"))
        try:
            return decode_mask(data)
        except ValueError as error:
            raise BrokenPromise(_broken(place, f"can't be read: {error}")) from error


def _extents(chunk: Scored, of: Literal["truth", "mask"]) -> list[Extent]:
    if of == "truth":
        return list(map(Extent, chunk["truth_uris"], chunk["truth_offsets"], chunk["truth_bytes"]))
    return list(map(Extent, chunk["mask_uris"], chunk["mask_offsets"], chunk["mask_bytes"]))


def _broken(place: Extent, what: str) -> str:
    return (
        f"mask {place} {what}, and a finished run names it: `fcn verify` lists all that is broken. "
        "Remove the run's folders runs/RUN, masks/run=RUN, images/run=RUN and "
        "class_statistics/run=RUN and evaluate again"
    )


def _places(image_uri: str, truth: Extent, mask: Extent) -> dict[str, Any]:
    return {
        "image_uri": image_uri,
        "truth_uri": truth.uri,
        "mask_uri": mask.uri,
        "mask_offset": mask.offset,
        "mask_bytes": mask.num_bytes,
    }


def _row(matrix: ConfusionMatrix) -> dict[str, Any]:
    metrics = matrix.metrics()
    return {
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
        names: The classes' names, by index.
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
