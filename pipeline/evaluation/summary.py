"""What an evaluation is of, and what its metrics.json says; without Ray."""

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from fcn.metrics import Metrics
from pipeline.errors import SettingError
from pipeline.inputs.data_set import DataSet
from pipeline.inputs.samples import Sample
from pipeline.labelling.session import Job
from pipeline.settings.train import EvaluateSettings

_log = logging.getLogger(__name__)
METRICS = ("mean_iu", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iu")


def identity(job: Job, data_set: DataSet, samples: Sequence[Sample]) -> str:
    """Hash what an evaluation depends on beside its images: network, ground truth, classes."""
    deciding = [
        job.record.fingerprint,
        [sample.mask_uri for sample in samples],
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
    """Return None for NaN, which JSON does not have: of no scored pixel there is no share."""
    return None if math.isnan(share) else share


def shown(share: float | None) -> str:
    """Format a share for a person."""
    return "unknown" if share is None else f"{share:.4f}"
