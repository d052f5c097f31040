"""Verify: re-read everything that a run has written, and prove the promises.

In: a run. Out: what contradicts what. Runs without Ray and without torch.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline.errors import ErrorCode, InputError
from pipeline.images.masks import IGNORE_INDEX, decode_mask
from pipeline.labelling.class_statistics import IGNORED, count_classes
from pipeline.labelling.confidences import NUM_BINS, confidence_bin
from pipeline.labelling.cost import Work, WorkSum
from pipeline.labelling.runs import NUM_FAILED_KEPT, FailedImage, Manifest, Run, TablePart
from pipeline.labelling.schema import CLASS_STATISTICS, COMMIT, IMAGES, OK, of_any_version
from pipeline.store.parquet import DAMAGE, read_parquet
from pipeline.store.storage import sha256_hex

_MAX_SHOWN = 10
_IMAGES_AT_A_TIME = 2_000


@dataclass
class Breaks:
    """What is broken, by kind: how often, and the first ten of each."""

    numbers: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, kind: str, what: str) -> None:
        """Count one break and keep it if it is among the first ten of its kind."""
        self.numbers[kind] += 1
        if len(self.first[kind]) < _MAX_SHOWN:
            self.first[kind].append(what)

    def __bool__(self) -> bool:
        """Whether anything is broken."""
        return bool(self.numbers)

    def __str__(self) -> str:
        """List them for a person."""
        lines = []
        for kind, number in self.numbers.items():
            lines.append(f"{kind}: {number}")
            lines += [f"  {what}" for what in self.first[kind]]
            if number > _MAX_SHOWN:
                lines.append(f"  ... and {number - _MAX_SHOWN} more")
        return "\n".join(lines)


@dataclass(frozen=True)
class Verdict:
    """What verify found.

    Attributes:
        breaks: Contradictions.
        num_masks: Masks that were read and compared.
        num_missing: Shards without a commit; a run with some is unfinished, which is no break.
        finished: Whether the run is published to the end.
    """

    breaks: Breaks
    num_masks: int
    num_missing: int
    finished: bool


def verify(run: Run, threads: int) -> Verdict:
    """Re-read a run's plan, commits, masks and tables and compare them.

    Args:
        run: Finished or not.
        threads: Masks read at a time.

    Raises:
        StoreError: The store did not answer, which proves nothing.
    """
    breaks = Breaks()
    missing = set(run.uncommitted())
    shards = [shard for shard in range(run.record.num_shards) if shard not in missing]
    manifest = _read_manifest(run, breaks)
    expected = _planned(run, missing, breaks)
    totals = _Totals()
    with ThreadPoolExecutor(threads) as pool:
        for commits in _commits(run, shards, breaks):
            _check_plan(run, commits, expected, breaks)
            totals.work.add(Work.of_metadata(commits.schema.metadata), commits.num_rows)
            for start in range(0, commits.num_rows, _IMAGES_AT_A_TIME):
                rows = commits.slice(start, _IMAGES_AT_A_TIME).to_pylist()
                checked = pool.map(partial(_check_mask, run), rows)
                for row, found in zip(rows, checked, strict=True):
                    for kind, what in found:
                        breaks.add(kind, f"{row['key']}: {what}")
                    totals.add(row)
    for planned in expected.values():
        breaks.add("planned image without a row", str(planned["key"]))
    if manifest is not None:
        _check_manifest(run, manifest, totals, breaks)
        _check_tables(run, manifest, shards, breaks)
        _check_no_others(run, manifest, breaks)
        if missing:
            breaks.add("manifest in spite of missing commits", f"{len(missing)} shards")
    finished = manifest is not None and run.finished()
    return Verdict(breaks, totals.num_ok, len(missing), finished)


def _first_masks_folder(run: Run) -> str:
    """Where the run put its masks, which is what its tables say for ever."""
    return Run(run.storage, run.record.output, run.record).masks_folder


def _read_manifest(run: Run, breaks: Breaks) -> Manifest | None:
    try:
        return run.manifest()
    except InputError as error:
        breaks.add("manifest is unreadable", str(error))
        return None


def _read_table(run: Run, uri: str, breaks: Breaks, sha256: str | None = None) -> pa.Table | None:
    """Read one Parquet file of the run; a break and None if it is missing or damaged."""
    name = uri.removeprefix(f"{run.output}/")
    data = run.storage.find(uri)
    if data is None:
        breaks.add("file is missing", name)
        return None
    try:
        table = read_parquet(data)
    except DAMAGE as error:
        breaks.add("file is unreadable", f"{name}: {error}")
        return None
    if sha256 not in (None, sha256_hex(data)):
        breaks.add("table file has another sha256", name)
    return table


def _commits(run: Run, shards: list[int], breaks: Breaks) -> Iterator[pa.Table]:
    for shard in shards:
        found = _read_table(run, run.commit_uri(shard), breaks)
        table = None if found is None else of_any_version(found, COMMIT)
        if table is not None and table.schema.equals(COMMIT):
            yield table
        elif table is not None:
            breaks.add("commit record has other columns", f"shard {shard}")


def _planned(
    run: Run, missing: set[int], breaks: Breaks
) -> dict[tuple[int, str], dict[str, str | None]]:
    planned = {}
    for part in run.record.plan:
        table = _read_table(run, f"{run.folder}/plan/{part.file}", breaks)
        for row in table.to_pylist() if table is not None else ():
            if row["shard"] not in missing:
                planned[row["shard"], row["image_id"]] = {
                    "key": row["key"],
                    "uri": row["uri"],
                    "etag": row["etag"],
                    "mask_uri": f"{_first_masks_folder(run)}/{row['mask_key']}",
                }
    return planned


def _check_plan(
    run: Run,
    commits: pa.Table,
    expected: dict[tuple[int, str], dict[str, str | None]],
    breaks: Breaks,
) -> None:
    columns = ["shard", "image_id", "status", "key", "uri", "etag", "mask_uri"]
    for row in commits.select(columns).to_pylist():
        planned = expected.pop((row["shard"], row["image_id"]), None)
        if planned is None:
            breaks.add("row without a planned image, or second row", row["key"])
            continue
        if row["status"] != OK:
            planned["mask_uri"] = None
        elif row["mask_uri"]:
            # A run that was resumed after its output was moved or copied has both places.
            here, first = run.masks_folder, _first_masks_folder(run)
            row["mask_uri"] = row["mask_uri"].replace(here, first, 1)
        for name, value in planned.items():
            if row[name] != value:
                breaks.add("row differs from the plan", f"{name}: {row[name]}, planned {value}")


def _check_mask(run: Run, row: dict[str, Any]) -> list[tuple[str, str]]:
    """Compare one image's row with its mask; runs in a thread."""
    if row["status"] != OK:
        return _check_error(row)
    # Where the output is now, be it moved or a copy of what the tables point at.
    uri = row["mask_uri"].replace(_first_masks_folder(run), run.masks_folder, 1)
    data = run.storage.find(uri)
    if data is None:
        return [("mask is missing", uri)]
    try:
        mask = decode_mask(data)
    except ValueError as error:
        return [("mask is unreadable", str(error))]
    counts = {entry["class_id"]: entry["pixel_count"] for entry in row["classes"]}
    size = (row["height"], row["width"])
    comparisons = (
        ("mask has another sha256", sha256_hex(data), row["mask_sha256"]),
        ("mask has another size than its image", mask.shape, size),
        ("class counts differ from the mask", count_classes(mask), counts),
        ("class counts do not sum to the pixels", sum(counts.values()), size[0] * size[1]),
        ("row is of another run", row["run_id"], run.run_id),
        ("row is of another network", row["fingerprint"], run.record.network.fingerprint),
    )
    return [
        (kind, f"{found}, committed {committed}")
        for kind, found, committed in comparisons
        if found != committed
    ]


def _check_error(row: dict[str, Any]) -> list[tuple[str, str]]:
    if row["error_code"] not in set(ErrorCode) or not row["error_message"]:
        return [("failed image without a known reason", str(row["error_code"]))]
    if row["mask_uri"] is not None or row["classes"]:
        return [("failed image with a mask or statistics", str(row["mask_uri"]))]
    return []


class _Totals:
    """Sums over the rows of the commit records, counted another way than publish does."""

    def __init__(self) -> None:
        self.num_images = self.num_ok = self.num_pixels = self.num_statistics = 0
        self.num_retried = self.num_retried_failed = 0
        self.errors: Counter[str] = Counter()
        self.failed: list[dict[str, Any]] = []
        self.pixels: Counter[int] = Counter()
        self.images: Counter[int] = Counter()
        self.confidences = [0] * NUM_BINS
        self.work = WorkSum()

    def add(self, row: dict[str, Any]) -> None:
        self.num_images += 1
        retried = (row["attempts"] or 1) > 1
        self.num_retried += retried
        self.num_retried_failed += retried and row["status"] != OK
        if row["status"] != OK:
            self.errors[row["error_code"]] += 1
            if len(self.failed) < NUM_FAILED_KEPT:
                self.failed.append({name: row[name] for name in FailedImage.model_fields})
            return
        self.num_ok += 1
        self.num_pixels += row["height"] * row["width"]
        self.num_statistics += len(row["classes"])
        if row["mean_confidence"] is not None:
            self.confidences[confidence_bin(row["mean_confidence"])] += 1
        for entry in row["classes"]:
            self.pixels[entry["class_id"]] += entry["pixel_count"]
            self.images[entry["class_id"]] += 1


def _check_manifest(run: Run, manifest: Manifest, totals: _Totals, breaks: Breaks) -> None:
    kept = manifest.failed
    failed = None if kept is None else [image.model_dump() for image in kept]
    pairs: dict[str, tuple[object, object]] = {
        "num_images": (manifest.num_images, totals.num_images),
        "planned images": (run.record.num_images, totals.num_images),
        "num_ok": (manifest.num_ok, totals.num_ok),
        "num_failed": (manifest.num_failed, totals.num_images - totals.num_ok),
        "num_retried": (manifest.num_retried, totals.num_retried),
        "num_retried_failed": (manifest.num_retried_failed, totals.num_retried_failed),
        "num_pixels": (manifest.num_pixels, totals.num_pixels),
        "num_shards": (manifest.num_shards, run.record.num_shards),
        "errors": (manifest.errors, dict(totals.errors)),
        # Runs of earlier versions have none of the four.
        "failed images": (failed, None if failed is None else totals.failed),
        "work": (manifest.work, manifest.work and totals.work.totals()),
        "timeline": (manifest.timeline, manifest.timeline and totals.work.timeline.total()),
        "confidences": (manifest.confidences, manifest.confidences and totals.confidences),
        "pixels of the classes": (
            {label.id: label.num_pixels for label in manifest.classes if label.num_pixels},
            dict(totals.pixels),
        ),
        "images of the classes": (
            {label.id: label.num_images for label in manifest.classes if label.num_images},
            dict(totals.images),
        ),
        "rows of images": (sum(part.num_rows for part in manifest.images), totals.num_images),
        "rows of class_statistics": (
            sum(part.num_rows for part in manifest.class_statistics),
            totals.num_statistics,
        ),
    }
    for name, (stated, counted) in pairs.items():
        if stated != counted:
            breaks.add("manifest differs from the commits", f"{name}: {stated}, not {counted}")


def _check_tables(run: Run, manifest: Manifest, shards: list[int], breaks: Breaks) -> None:
    images = _read_parts(run, manifest.images, breaks, IMAGES)
    statistics = _read_parts(run, manifest.class_statistics, breaks, CLASS_STATISTICS)
    names = {label.id: label.name for label in run.record.network.classes}
    names[IGNORE_INDEX] = IGNORED
    for commits in _commits(run, shards, Breaks()):  # what is unreadable was named before
        rows = commits.to_pylist()
        for row in rows:
            published = next(images, None)
            if published != {name: row[name] for name in IMAGES.names}:
                breaks.add("images table differs from the commits", row["key"])
            for entry in row["classes"] if row["status"] == OK else ():
                _check_statistics(
                    next(statistics, None),
                    row,
                    {**entry, "class_name": names.get(entry["class_id"])},
                    breaks,
                )
    for table, left in (("images", images), ("class_statistics", statistics)):
        for row in left:
            breaks.add(f"{table} has a row that no commit knows", str(row["key"]))


def _check_statistics(
    published: dict[str, Any] | None, row: dict[str, Any], entry: dict[str, Any], breaks: Breaks
) -> None:
    expected = {
        **{name: row[name] for name in ("image_id", "key", "run_id")},
        **entry,
        "pixel_fraction": entry["pixel_count"] / (row["height"] * row["width"]),
    }
    found = {name: published[name] for name in expected} if published else None
    if found != expected:
        breaks.add("class_statistics differs from the commits", f"{row['key']} {entry}")


def _check_no_others(run: Run, manifest: Manifest, breaks: Breaks) -> None:
    """Find tables beside the run's own: whoever reads the folder takes them for published."""
    named = {part.file for part in (*manifest.images, *manifest.class_statistics)}
    for table in ("images", "class_statistics"):
        folder = f"{table}/run={run.run_id}"
        for name in run.storage.children(f"{run.output}/{folder}"):
            # What else a desktop lays there, .DS_Store or desktop.ini, is read by nobody.
            if name.endswith(".parquet") and f"{folder}/{name}" not in named:
                breaks.add("table file that no manifest names", f"{folder}/{name}")


def _read_parts(
    run: Run, parts: list[TablePart], breaks: Breaks, schema: pa.Schema
) -> Iterator[dict[str, Any]]:
    for part in parts:
        found = _read_table(run, f"{run.output}/{part.file}", breaks, part.sha256)
        if found is not None:
            for batch in of_any_version(found, schema).to_batches(_IMAGES_AT_A_TIME):
                yield from batch.to_pylist()
