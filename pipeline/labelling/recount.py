"""Recount: sums over the rows of commit records, counted another way than publishing does."""

from collections import Counter
from typing import Any

from pydantic import BaseModel, Field

from pipeline.labelling.breaks import Breaks
from pipeline.labelling.confidences import NUM_BINS, confidence_bin
from pipeline.labelling.cost import WorkSum
from pipeline.labelling.records import NUM_FAILED_KEPT, FailedImage, Manifest
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import OK


class Recount(BaseModel):
    """Sums over rows; those of pieces of a run add up to those of the run."""

    num_images: int = 0
    num_ok: int = 0
    num_read: int = 0
    num_tars: int = 0
    num_pixels: int = 0
    num_statistics: int = 0
    num_retried: int = 0
    num_retried_failed: int = 0
    errors: Counter[str] = Field(default_factory=Counter)
    failed: list[FailedImage] = []
    pixels: Counter[int] = Field(default_factory=Counter)
    images: Counter[int] = Field(default_factory=Counter)
    confidences: list[int] = [0] * NUM_BINS
    work: WorkSum = Field(default_factory=WorkSum)

    def add(self, row: dict[str, Any]) -> None:
        """Count the row of one image."""
        self.num_images += 1
        retried = (row["attempts"] or 1) > 1
        self.num_retried += retried
        self.num_retried_failed += retried and row["status"] != OK
        if row["status"] != OK:
            self._add_failed(row)
            return
        self.num_ok += 1
        self.num_pixels += row["height"] * row["width"]
        self.num_statistics += len(row["classes"])
        if row["mean_confidence"] is not None:
            self.confidences[confidence_bin(row["mean_confidence"])] += 1
        for entry in row["classes"]:
            self.pixels[entry["class_id"]] += entry["pixel_count"]
            self.images[entry["class_id"]] += 1

    def _add_failed(self, row: dict[str, Any]) -> None:
        # What is broken may have no code; it is named elsewhere.
        self.errors[str(row["error_code"])] += 1
        if len(self.failed) < NUM_FAILED_KEPT:
            shown = {name: str(row[name]) for name in FailedImage.model_fields}
            self.failed.append(FailedImage(**shown))

    def add_all(self, other: "Recount") -> None:
        """Add what was counted in the rows that come next."""
        self.num_images += other.num_images
        self.num_ok += other.num_ok
        self.num_read += other.num_read
        self.num_tars += other.num_tars
        self.num_pixels += other.num_pixels
        self.num_statistics += other.num_statistics
        self.num_retried += other.num_retried
        self.num_retried_failed += other.num_retried_failed
        self.errors.update(other.errors)
        self.failed = [*self.failed, *other.failed][:NUM_FAILED_KEPT]
        self.pixels.update(other.pixels)
        self.images.update(other.images)
        pairs = zip(self.confidences, other.confidences, strict=True)
        self.confidences = [one + more for one, more in pairs]
        self.work.add_sum(other.work)


def check_manifest(run: Run, manifest: Manifest, count: Recount, breaks: Breaks) -> None:
    """Compare a manifest with what was counted in the commit records.

    Args:
        run: The run of the manifest.
        manifest: As it stands.
        count: Over all of the run.
        breaks: Gets what differs.
    """
    pairs: dict[str, tuple[object, object]] = {
        "num_images": (manifest.num_images, count.num_images),
        "planned images": (run.record.num_images, count.num_images),
        "num_ok": (manifest.num_ok, count.num_ok),
        "num_failed": (manifest.num_failed, count.num_images - count.num_ok),
        "num_retried": (manifest.num_retried, count.num_retried),
        "num_retried_failed": (manifest.num_retried_failed, count.num_retried_failed),
        "num_pixels": (manifest.num_pixels, count.num_pixels),
        "num_shards": (manifest.num_shards, run.record.num_shards),
        "errors": (manifest.errors, dict(count.errors)),
        # Runs of earlier versions have none of the four.
        "failed images": (manifest.failed, None if manifest.failed is None else count.failed),
        "work": (manifest.work, manifest.work and count.work.totals()),
        "timeline": (manifest.timeline, manifest.timeline and count.work.timeline.total()),
        "confidences": (manifest.confidences, manifest.confidences and count.confidences),
        "pixels of the classes": (
            {label.id: label.num_pixels for label in manifest.classes if label.num_pixels},
            dict(count.pixels),
        ),
        "images of the classes": (
            {label.id: label.num_images for label in manifest.classes if label.num_images},
            dict(count.images),
        ),
        "rows of images": (sum(part.num_rows for part in manifest.images), count.num_images),
        "rows of class_statistics": (
            sum(part.num_rows for part in manifest.class_statistics),
            count.num_statistics,
        ),
    }
    for name, (stated, counted) in pairs.items():
        if stated != counted:
            breaks.add("manifest differs from the commits", f"{name}: {stated}, not {counted}")
