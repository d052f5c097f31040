"""What an evaluation is of, and what its metrics.json says; without Ray."""

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import SettingError
from pipeline.evaluation.intervals import calibration_error, mean_iu_interval
from pipeline.evaluation.score import Scores
from pipeline.inputs.data_set import DataSet
from pipeline.inputs.samples import Sample
from pipeline.inputs.splits import groups_of
from pipeline.labelling.session import Job
from pipeline.settings.evaluate import EvaluateSettings

_log = logging.getLogger(__name__)
_COUNTS = ("class_truth", "class_predicted", "class_hits")
METRICS = ("mean_iu", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iu")


def identity(job: Job, data_set: DataSet, samples: Sequence[Sample]) -> str:
    """Hash what an evaluation depends on beside its images: network, ground truth, classes."""
    deciding = [
        job.record.fingerprint,
        [str(sample.mask) for sample in samples],
        [[one.name, *one.color] for one in data_set.classes],
        data_set.coding.described(),
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


def describe(
    job: Job,
    settings: EvaluateSettings,
    scores: Scores,
    names: Sequence[str],
    samples: Sequence[Sample],
) -> dict[str, Any]:
    """Build what metrics.json says."""
    metrics, outlines = scores.matrix.metrics(), scores.outlines.class_iu
    absent = set(metrics.absent_classes)
    per_class = {
        name: None
        if index in absent
        else {
            "iu": metrics.class_iu[index],
            "accuracy": metrics.class_accuracy[index],
            "boundary_iu": outlines[index],
            "num_pixels": int(scores.matrix.counts[index].sum()),
        }
        for index, name in enumerate(names)
    }
    return {
        "data": settings.data,
        "split": settings.split,
        "weights": job.record.weights,
        "fingerprint": job.record.fingerprint,
        "num_images": len(samples),
        "num_scored": scores.images.num_rows,
        "num_pixels": metrics.num_pixels,
        **{name: _known(getattr(metrics, name)) for name in METRICS},
        "mean_boundary_iu": _mean(outlines),
        **_how_sure(scores.images, settings.val_group),
        "classes": per_class,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _mean(shares: NDArray[np.float64]) -> float | None:
    known = shares[~np.isnan(shares)]
    return float(known.mean()) if len(known) else None


def _how_sure(images: pa.Table, group: str | None) -> dict[str, Any]:
    """Return the interval of the mean IU, and how well confidence is calibrated."""
    if not images.num_rows:
        return {"mean_iu_95": None, "calibration_error": None}
    counts = np.stack([np.array(images[name].to_pylist(), float) for name in _COUNTS], axis=1)
    uris = images["image_uri"].to_pylist()
    groups = None if group is None else groups_of([Sample(uri, "") for uri in uris], group)
    interval = mean_iu_interval(counts, groups)
    confidence, accuracy, pixels = (
        images[name].to_numpy().astype(float)
        for name in ("mean_confidence", "pixel_accuracy", "num_pixels")
    )
    return {
        "mean_iu_95": interval and list(interval),
        "calibration_error": _known(calibration_error(confidence, accuracy, pixels)),
    }


def _known(share: float) -> float | None:
    """Return None for NaN, which JSON does not have: of no scored pixel there is no share."""
    return None if math.isnan(share) else share


def shown(share: float | None) -> str:
    """Format a share for a person."""
    return "unknown" if share is None else f"{share:.4f}"
