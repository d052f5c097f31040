"""Records: what the objects of a run say, `run.json` and `manifest.json`."""

from datetime import datetime
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from pipeline.labelling.cost import WorkTotals
from pipeline.labelling.shards import PlanPart
from pipeline.labelling.timeline import Timeline

# Failed images that a manifest names, so that a report reads no table.
NUM_FAILED_KEPT = 20


class Record(BaseModel):
    """An object that stands in the output: what a newer version adds is left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class ClassRecord(Record):
    """A class as the tables and palettes show it."""

    id: int
    name: str
    color: tuple[int, int, int]


class NetworkRecord(Record):
    """What the tables need to know of a network, and what decides its masks' pixels."""

    fingerprint: str
    weights: str
    untrained: bool
    deciding: dict[str, Any]
    classes: list[ClassRecord]


class RunRecord(Record):
    """run.json: put-if-absent, never changed.

    `identity` is the hash of fingerprint and input: runs of one identity exclude each other.
    """

    run_id: str
    identity: str
    created_at: datetime
    input: str
    output: str
    network: NetworkRecord
    settings: dict[str, Any]
    versions: dict[str, str]
    num_images: int
    num_bytes: int
    num_shards: int
    num_skipped: int
    num_skipped_failed: int
    plan: list[PlanPart]


class TablePart(Record):
    """One published Parquet file; `file` is relative to the output."""

    file: str
    num_rows: int
    sha256: str


class ClassTotal(Record):
    """A class summed over a run."""

    id: int
    name: str
    color: tuple[int, int, int]
    num_pixels: int
    num_images: int
    # The mean over its pixels; of none there is none, nor in manifests of earlier versions.
    mean_confidence: float | None = None


class FailedImage(Record):
    """An image without a mask, as the report shows it."""

    key: str
    error_code: str
    error_message: str


class Manifest(Record):
    """manifest.json: exists once every shard has its commit; totals are sums over the commits."""

    run_id: str
    fingerprint: str
    input: str
    untrained: bool
    created_at: datetime
    finished_at: datetime
    num_images: int
    num_ok: int
    num_failed: int
    num_skipped: int
    num_skipped_failed: int
    # Manifests of earlier versions do not say which images had failed before.
    num_retried: int = 0
    num_retried_failed: int = 0
    num_shards: int
    num_pixels: int
    errors: dict[str, int]
    # The first `NUM_FAILED_KEPT` of them; manifests of earlier versions leave them to the tables.
    failed: list[FailedImage] | None = None
    classes: list[ClassTotal]
    images: list[TablePart]
    class_statistics: list[TablePart]
    # The mean over the images with a mask; manifests of earlier versions have none.
    mean_confidence: float | None = None
    # Images by their mean confidence (`confidences.NUM_BINS`), and by the time when they were done;
    # manifests of earlier versions have neither.
    confidences: list[int] | None = None
    timeline: Timeline | None = None
    work: WorkTotals | None = None
    # Manifests of earlier versions call it held_back_by.
    bottleneck: str = Field("", validation_alias=AliasChoices("bottleneck", "held_back_by"))
    price_per_thousand_images: float | None = None
