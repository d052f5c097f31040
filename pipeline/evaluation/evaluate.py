"""An evaluation beside its labelling: what is checked before, scored after, and written."""

import hashlib
import io
import json
import logging
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import compress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fcn.metrics import ConfusionMatrix, Metrics
from pipeline.errors import SettingError
from pipeline.inputs.data_set import DataSet, as_table
from pipeline.inputs.inspect import Inspect, check_truths
from pipeline.inputs.layouts import Sample
from pipeline.labelling.session import Job
from pipeline.settings.train import EvaluateSettings
from pipeline.store.storage import Storage

_log = logging.getLogger(__name__)
_IMAGES_PER_CHUNK = 32
METRICS = ("mean_iu", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iu")


def identity(job: Job, data_set: DataSet, samples: Sequence[Sample]) -> str:
    """Hash what an evaluation depends on beside its images: network, truths, and their classes."""
    deciding = [
        job.record.fingerprint,
        [sample.mask_uri for sample in samples],
        [[one.name, *one.color] for one in data_set.classes],
        data_set.coding.kind,
    ]
    return hashlib.sha256(json.dumps(deciding).encode()).hexdigest()[:12]


def check_classes(job: Job, data_set: DataSet) -> None:
    """Compare the network's classes with the data set's.

    Raises:
        SettingError: They are not as many.
    """
    ours = [one.name for one in job.record.classes]
    theirs = [one.name for one in data_set.classes]
    if len(ours) != len(theirs):
        raise SettingError(
            f"the network has {len(ours)} classes ({', '.join(ours[:5])}, ...), the data set "
            f"{len(theirs)} ({', '.join(theirs[:5])}, ...)"
        )
    if ours != theirs:
        pairs = [f"{a} / {b}" for a, b in zip(ours, theirs, strict=True) if a != b]
        _log.warning("classes have other names in the network and the data: %s", ", ".join(pairs))


def check_ground_truth(job: Job, data_set: DataSet, split: str, samples: Sequence[Sample]) -> None:
    """Find all bad truths before hours of labelling; bad images become rows of it."""
    from pipeline.cluster.inspection import inspect  # noqa: PLC0415 - it loads Ray

    limits = job.settings.max_image_pixels, job.settings.io_threads
    look = Inspect(job.storage, data_set.coding, *limits, judge_images=False)
    check_truths(inspect(look, {split: as_table(samples)}, job.settings), len(data_set.classes))


def score_masks(
    job: Job, data_set: DataSet, samples: Sequence[Sample]
) -> tuple[ConfusionMatrix, pa.Table]:
    """Compare the masks of finished runs with their ground truth: all in all, and by image."""
    # Ray and matplotlib take seconds to import, which a setting's error must not wait for.
    from pipeline.cluster.ray_errors import own_errors  # noqa: PLC0415
    from pipeline.cluster.tasks import in_tasks  # noqa: PLC0415
    from pipeline.evaluation.score import IMAGE_SCORES, Score  # noqa: PLC0415

    chunks = list(_chunks(_masks(job), samples))
    matrix = ConfusionMatrix.zeros(len(data_set.classes))
    rows: list[dict[str, Any]] = []
    score = Score(job.storage, data_set.coding, job.settings.io_threads)
    with own_errors():
        scored = (
            in_tasks(chunks, score, job.settings.max_wait_minutes).iter_rows() if chunks else ()
        )
        for chunk in scored:
            matrix = matrix + ConfusionMatrix(chunk["counts"])
            rows += chunk["images"]
    table = pa.Table.from_pylist(rows, IMAGE_SCORES).sort_by("image_uri")
    return matrix, table


def _masks(job: Job) -> dict[str, str]:
    """Give the newest mask of every image that finished runs of this network have labelled.

    An image that failed since has none, whatever an older run has made of it.
    """
    job.history.refresh()  # the labelling has added to it
    runs = job.history.of_network(job.record.fingerprint)
    finished = list(compress(runs, job.history.finished(runs)))
    found: dict[str, str | None] = {}
    for run, manifest in zip(finished, job.history.manifests(finished), strict=True):
        for table in run.published(manifest, ["uri", "mask_uri"]) if manifest else ():
            pairs = zip(*(table[name].to_pylist() for name in ("uri", "mask_uri")), strict=True)
            found |= dict(pairs)
    return {uri: mask for uri, mask in found.items() if mask is not None}


def _chunks(masks: dict[str, str], samples: Sequence[Sample]) -> Iterator[dict[str, list[str]]]:
    labelled = [sample for sample in samples if sample.image_uri in masks]
    for first in range(0, len(labelled), _IMAGES_PER_CHUNK):
        some = labelled[first : first + _IMAGES_PER_CHUNK]
        yield {
            "image_uris": [sample.image_uri for sample in some],
            "truth_uris": [sample.mask_uri for sample in some],
            "mask_uris": [masks[sample.image_uri] for sample in some],
        }


def describe(  # noqa: PLR0913, PLR0917 - all that metrics.json says
    job: Job,
    settings: EvaluateSettings,
    metrics: Metrics,
    names: Sequence[str],
    num_images: int,
    num_scored: int,
) -> dict[str, Any]:
    """Build what metrics.json says."""
    absent = set(metrics.absent_classes)
    per_class = {
        name: None
        if index in absent
        else {"iu": metrics.class_iu[index], "accuracy": metrics.class_accuracy[index]}
        for index, name in enumerate(names)
    }
    return {
        "data": settings.data,
        "split": settings.split,
        "weights": job.record.weights,
        "fingerprint": job.record.fingerprint,
        "num_images": num_images,
        "num_scored": num_scored,
        "num_pixels": metrics.num_pixels,
        **{name: _known(getattr(metrics, name)) for name in METRICS},
        "classes": per_class,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _known(share: float) -> float | None:
    """Give None for NaN, which JSON does not have: of no scored pixel there is no share."""
    return None if math.isnan(share) else share


def shown(share: float | None) -> str:
    """Format a share for a person."""
    return "unknown" if share is None else f"{share:.4f}"


def write(  # noqa: PLR0913, PLR0917 - the four files of an evaluation
    storage: Storage,
    folder: str,
    found: dict[str, Any],
    matrix: ConfusionMatrix,
    scores: pa.Table,
    names: Sequence[str],
) -> None:
    """Write the files of an evaluation."""
    from pipeline.evaluation.score import confusion_picture, confusion_table  # noqa: PLC0415 - matplotlib

    title = f"mean IU {shown(found['mean_iu'])}, pixel accuracy {shown(found['pixel_accuracy'])}"
    storage.write(f"{folder}/images.parquet", _parquet(scores))
    storage.write(f"{folder}/confusion_matrix.parquet", _parquet(confusion_table(matrix, names)))
    storage.write(f"{folder}/confusion_matrix.png", confusion_picture(matrix, names, title))
    # Last: where it stands, the others do.
    storage.write(f"{folder}/metrics.json", json.dumps(found, indent=1, allow_nan=False).encode())


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()
