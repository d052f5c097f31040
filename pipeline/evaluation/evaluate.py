"""An evaluation on Ray: its ground truth looked at, its masks scored, and what it writes."""

import io
import json
from collections.abc import Iterator, Sequence
from itertools import compress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fcn.boundary import BoundaryCounts
from fcn.metrics import ConfusionMatrix
from pipeline.cluster.inspection import inspect
from pipeline.cluster.ray_errors import own_errors
from pipeline.cluster.tasks import in_tasks
from pipeline.evaluation.score import (
    IMAGE_SCORES,
    Score,
    Scored,
    Scores,
    confusion_table,
)
from pipeline.evaluation.summary import shown
from pipeline.images.confusion import confusion_picture
from pipeline.inputs.data_set import DataSet, as_table
from pipeline.inputs.inspect import Inspect, check_truths
from pipeline.inputs.samples import Sample
from pipeline.labelling.session import Job
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage

_IMAGES_PER_CHUNK = 32


def check_ground_truth(job: Job, data_set: DataSet, split: str, samples: Sequence[Sample]) -> None:
    """Find all bad ground truth before hours of labelling; bad images become rows of it."""
    asked = job.settings
    limits = asked.max_image_pixels, asked.max_image_s, asked.io_threads
    look = Inspect(job.storage, data_set.coding, *limits, judge_images=False)
    check_truths(inspect(look, {split: as_table(samples)}, job.settings), len(data_set.classes))


def score_masks(job: Job, data_set: DataSet, samples: Sequence[Sample]) -> Scores:
    """Compare the masks of finished runs with their ground truth: all in all, and by image."""
    chunks = list(_chunks(_masks(job, samples), samples))
    number = len(data_set.classes)
    matrix, nothing = ConfusionMatrix.zeros(number), np.zeros(number, np.int64)
    outlines = BoundaryCounts(nothing, nothing, nothing)
    rows: list[dict[str, Any]] = []
    score = Score(job.storage, data_set.coding, job.settings.io_threads)
    with own_errors():
        scored = (
            in_tasks(chunks, score, job.settings.max_wait_minutes).iter_rows() if chunks else ()
        )
        for chunk in scored:
            matrix = matrix + ConfusionMatrix(chunk["counts"])
            found = {name: np.asarray(one) for name, one in chunk["boundary"].items()}
            outlines = outlines + BoundaryCounts(**found)
            rows += chunk["images"]
    table = pa.Table.from_pylist(rows, IMAGE_SCORES).sort_by("image_uri")
    return Scores(matrix, outlines, table)


def _masks(job: Job, samples: Sequence[Sample]) -> dict[str, tuple[Extent, float | None]]:
    """Return the newest masks of samples that finished runs have labelled, and how sure they are.

    An image that failed since has none, whatever an older run has made of it.
    """
    job.history.refresh()  # the labelling has added to it
    runs = job.history.of_network(job.record.fingerprint)
    finished = list(compress(runs, job.history.finished(runs)))
    columns = ["uri", "mask_uri", "mask_offset", "mask_bytes", "mean_confidence"]
    # Of millions that the output may hold.
    asked = pa.array([sample.image_uri for sample in samples], pa.string())
    found: dict[str, tuple[Extent | None, float | None]] = {}
    for run, manifest in zip(finished, job.history.manifests(finished), strict=True):
        for table in run.published(manifest, columns) if manifest else ():
            for row in table.filter(pc.is_in(table["uri"], asked)).to_pylist():
                mask = Extent.of_mask(row) if row["mask_uri"] else None
                found[row["uri"]] = mask, row["mean_confidence"]
    return {uri: (mask, sure) for uri, (mask, sure) in found.items() if mask is not None}


def _chunks(
    masks: dict[str, tuple[Extent, float | None]], samples: Sequence[Sample]
) -> Iterator[Scored]:
    labelled = [sample for sample in samples if sample.image_uri in masks]
    for first in range(0, len(labelled), _IMAGES_PER_CHUNK):
        some = labelled[first : first + _IMAGES_PER_CHUNK]
        theirs = [masks[sample.image_uri] for sample in some]
        yield Scored(
            image_uris=[sample.image_uri for sample in some],
            truth_uris=[sample.mask_uri for sample in some],
            truth_offsets=[sample.mask_offset for sample in some],
            truth_bytes=[sample.mask_bytes for sample in some],
            mask_uris=[mask.uri for mask, _ in theirs],
            mask_offsets=[mask.offset for mask, _ in theirs],
            mask_bytes=[mask.num_bytes for mask, _ in theirs],
            confidences=[confidence for _, confidence in theirs],
        )


def write(
    storage: Storage,
    folder: str,
    found: dict[str, Any],
    scores: Scores,
    names: Sequence[str],
) -> None:
    """Write the files of an evaluation."""
    title = f"mean IU {shown(found['mean_iu'])}, pixel accuracy {shown(found['pixel_accuracy'])}"
    storage.write(f"{folder}/images.parquet", _parquet(scores.images))
    storage.write(
        f"{folder}/confusion_matrix.parquet", _parquet(confusion_table(scores.matrix, names))
    )
    storage.write(
        f"{folder}/confusion_matrix.png", confusion_picture(scores.matrix.counts, names, title)
    )
    # Last: where it stands, the others do.
    storage.write(f"{folder}/metrics.json", json.dumps(found, indent=1, allow_nan=False).encode())


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()
