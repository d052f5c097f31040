"""Manifests with known numbers, for what is told of runs without their tables."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pipeline.labelling.confidences import NUM_BINS
from pipeline.labelling.cost import WorkTotals
from pipeline.labelling.records import ClassTotal, Manifest

_NIGHT = datetime(2026, 11, 28, 2, tzinfo=UTC)


def make_manifest(mix: Mapping[str, int] | None = None, **fields: Any) -> Manifest:
    """Build the manifest of a run of ten images, of which each has a mask.

    Args:
        mix: Number of pixels by class name.
        fields: Of `Manifest`, where they are others.
    """
    mix = {"sky": 10} if mix is None else mix
    known: dict[str, Any] = {
        "run_id": "night",
        "fingerprint": "net",
        "input": "in",
        "untrained": False,
        "created_at": _NIGHT,
        "finished_at": _NIGHT,
        "num_shards": 1,
        "num_images": 10,
        "num_ok": 10,
        "num_failed": 0,
        "errors": {},
        "num_skipped": 0,
        "num_skipped_failed": 0,
        "images": [],
        "class_statistics": [],
        "num_pixels": sum(mix.values()),
        "classes": [
            ClassTotal(id=index, name=name, color=(index, 0, 0), num_pixels=number, num_images=1)
            for index, (name, number) in enumerate(mix.items())
        ],
    }
    return Manifest(**{**known, **fields})


def make_work(work_seconds: float) -> WorkTotals:
    """Build what a run of so many seconds on one node has cost."""
    return WorkTotals(
        seconds={},
        read_bytes=0,
        written_bytes=0,
        retries={},
        backoffs=0,
        num_replicas=1,
        replica_seconds=work_seconds,
        node_seconds=work_seconds,
        busy_share=1.0,
        work_seconds=work_seconds,
    )


def count_confidence(counts: Mapping[int, int]) -> list[int]:
    """Return the histogram of a manifest that has so many images in some bins.

    Args:
        counts: Number of images by bin.
    """
    return [counts.get(at, 0) for at in range(NUM_BINS)]
