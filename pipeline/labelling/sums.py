"""Sums: what a manifest says of commit records; sums of sections are those of the run.

All of them are exact, so that they are the same in whatever portions they were counted.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from fractions import Fraction

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field

from pipeline.errors import ErrorCode
from pipeline.images.masks import IGNORE_COLOR, IGNORE_INDEX
from pipeline.labelling.advice import price_per_thousand, verdict
from pipeline.labelling.class_statistics import CONFIDENCE_UNITS, IGNORED, ClassTotals
from pipeline.labelling.confidences import NUM_BINS, count_confidences
from pipeline.labelling.cost import WorkSum
from pipeline.labelling.records import (
    NUM_FAILED_KEPT,
    ClassRecord,
    ClassTotal,
    FailedImage,
    Manifest,
    NetworkRecord,
    TablePart,
)
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import ERROR, OK

# The smallest float64 is 2 ** -1074: as multiples of it, all of them are integers.
_BITS = 1074


class Sums(BaseModel):
    """Sums over commit records.

    Attributes:
        num_images: Rows.
        num_ok: Of these, with a mask.
        num_pixels: Number of pixels of those with a mask.
        num_retried: Rows of images that earlier runs have tried.
        num_retried_failed: Of these, without a mask.
        errors: Rows by error code.
        failed: The first `NUM_FAILED_KEPT` of them.
        pixels: By class.
        images: With a class, by class.
        confidence: Sum of the images' mean confidences.
        num_confident: Images that it is a sum of.
        confidences: Images by the bin of their mean confidence.
        class_confidence_units: Sum of the confidences of the pixels of each class, as
            `ClassTotals` has it.
        finished_at: When the last of them was written.
        work: What they have cost.
    """

    # What was summed up in other units, by a version before, is refused.
    model_config = ConfigDict(extra="forbid")

    num_images: int = 0
    num_ok: int = 0
    num_pixels: int = 0
    num_retried: int = 0
    num_retried_failed: int = 0
    errors: Counter[str] = Field(default_factory=Counter)
    failed: list[FailedImage] = []
    pixels: Counter[int] = Field(default_factory=Counter)
    images: Counter[int] = Field(default_factory=Counter)
    confidence: Fraction = Fraction(0)
    num_confident: int = 0
    confidences: list[int] = [0] * NUM_BINS
    class_confidence_units: Counter[int] = Field(default_factory=Counter)
    finished_at: datetime | None = None
    work: WorkSum = Field(default_factory=WorkSum)

    def add(self, other: "Sums") -> None:
        """Add the sums over the records that come next."""
        self.num_images += other.num_images
        self.num_ok += other.num_ok
        self.num_pixels += other.num_pixels
        self.num_retried += other.num_retried
        self.num_retried_failed += other.num_retried_failed
        self.confidence += other.confidence
        self.num_confident += other.num_confident
        pairs = zip(self.confidences, other.confidences, strict=True)
        self.confidences = [one + more for one, more in pairs]
        self.class_confidence_units.update(other.class_confidence_units)
        self.errors.update(other.errors)
        self.pixels.update(other.pixels)
        self.images.update(other.images)
        self.failed = (self.failed + other.failed)[:NUM_FAILED_KEPT]
        latest = filter(None, (self.finished_at, other.finished_at))
        self.finished_at = max(latest, default=None)
        self.work.add_sum(other.work)

    def manifest(self, run: Run, images: list[TablePart], statistics: list[TablePart]) -> Manifest:
        """Build the manifest of a run whose sums these are.

        Args:
            run: The run.
            images: Files of its table `images`.
            statistics: Files of its table `class_statistics`.
        """
        record, work = run.record, self.work.totals()
        price = record.settings.get("price_per_node_hour")
        confident = self.num_confident
        return Manifest(
            run_id=record.run_id,
            fingerprint=record.network.fingerprint,
            input=record.input,
            untrained=record.network.untrained,
            created_at=record.created_at,
            finished_at=self.finished_at or record.created_at,
            num_images=self.num_images,
            num_ok=self.num_ok,
            num_failed=self.num_images - self.num_ok,
            num_skipped=record.num_skipped,
            num_skipped_failed=record.num_skipped_failed,
            num_retried=self.num_retried,
            num_retried_failed=self.num_retried_failed,
            num_shards=record.num_shards,
            num_pixels=self.num_pixels,
            errors={str(code): self.errors[code] for code in ErrorCode if self.errors[code]},
            failed=self.failed,
            classes=[self._of_class(label) for label in self._classes(record.network)],
            images=images,
            class_statistics=statistics,
            mean_confidence=float(self.confidence / confident) if confident else None,
            confidences=self.confidences,
            timeline=self.work.timeline.total(),
            work=work,
            bottleneck=verdict(work) if work.replica_seconds else "",
            price_per_thousand_images=price_per_thousand(work, self.num_images, price),
        )

    def _classes(self, network: NetworkRecord) -> list[ClassRecord]:
        """Return the network's classes, and at last what it ignored, if it has."""
        ignored = ClassRecord(id=IGNORE_INDEX, name=IGNORED, color=IGNORE_COLOR)
        return [*network.classes, *([ignored] if self.pixels[IGNORE_INDEX] else [])]

    def _of_class(self, label: ClassRecord) -> ClassTotal:
        pixels, confidence = self.pixels[label.id], self.class_confidence_units.get(label.id)
        return ClassTotal(
            id=label.id,
            name=label.name,
            color=label.color,
            num_pixels=pixels,
            num_images=self.images[label.id],
            mean_confidence=None if confidence is None else confidence / CONFIDENCE_UNITS / pixels,
        )


def sums_of(commits: pa.Table, statistics: pa.Table, work: WorkSum) -> Sums:
    """Sum over some commit records.

    Args:
        commits: Columns of `schema.COMMIT`.
        statistics: The statistics of the same images, columns of `schema.CLASS_STATISTICS`.
        work: What they have cost.
    """
    succeeded = commits.filter(pc.equal(commits["status"], OK))
    retried = commits.filter(pc.greater(commits["attempts"], 1))
    heights = succeeded["height"].cast(pa.int64())
    confidences = succeeded["mean_confidence"].drop_null()
    classes = ClassTotals()
    classes.add(statistics)
    return Sums(
        num_images=commits.num_rows,
        num_ok=succeeded.num_rows,
        num_pixels=pc.sum(pc.multiply(heights, succeeded["width"])).as_py() or 0,
        num_retried=retried.num_rows,
        num_retried_failed=retried.filter(pc.not_equal(retried["status"], OK)).num_rows,
        errors=Counter(commits["error_code"].drop_null().to_pylist()),
        failed=_first_failed(commits),
        pixels=classes.pixels,
        images=classes.images,
        confidence=_exact(confidences.to_pylist()),
        num_confident=len(confidences),
        confidences=count_confidences(confidences),
        class_confidence_units=classes.confidence,
        finished_at=pc.max(commits["labelled_at"]).as_py(),
        work=work,
    )


def _first_failed(commits: pa.Table) -> list[FailedImage]:
    failed = commits.filter(pc.equal(commits["status"], ERROR)).slice(0, NUM_FAILED_KEPT)
    rows = failed.select(list(FailedImage.model_fields)).to_pylist()
    return [FailedImage(**row) for row in rows]


def _exact(values: Iterable[float]) -> Fraction:
    """Sum floats without rounding."""
    total = 0
    for numerator, denominator in map(float.as_integer_ratio, values):
        # Denominators are powers of two.
        total += numerator << (_BITS + 1 - denominator.bit_length())
    return Fraction(total, 1 << _BITS)
