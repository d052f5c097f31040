"""Which images of a run a page may show: the doubtful, some at random, some of each class.

Read from a bounded number of files of the published tables, and told by what stands there alone:
the same run has the same candidates, unless a store is too slow to read all of these files.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import PipelineError
from pipeline.labelling.page.before import COLUMNS, Before
from pipeline.labelling.page.comparison import Night
from pipeline.labelling.page.reads import Deadline, Reads, in_a_hurry
from pipeline.labelling.records import Manifest, TablePart
from pipeline.labelling.runs import Run, damaged, masks_folder
from pipeline.labelling.schema import OK
from pipeline.store.parquet import DAMAGE, read_parquet

# Files of each table that are read, each of 100,000 images: of a larger run every so manieth.
_MAX_FILES = 10
# Of these, so many are in memory.
_FILES_AT_A_TIME = 3
# A class is shown where it is more than a speck.
_LEAST_SHARE = 0.01
_COLUMNS = [
    *("image_id", "key", "uri", "etag", "num_bytes", "image_offset", "status", "mean_confidence"),
    *("mask_uri", "mask_offset", "mask_bytes"),
]
_OF_CLASSES = ["image_id", "class_id", "pixel_fraction", "mean_confidence"]

# A row of the images table, its mask's place as the output lies now.
Row = dict[str, Any]

# Columns of a table, the deciding one first.
_Order = list[tuple[str, Literal["ascending", "descending"]]]


@dataclass
class Candidates:
    """Images of a run.

    Attributes:
        least_confident: The lowest mean confidence first.
        less_sure: Of which the network of the run before was surer, with `change` of the mean
            confidence and `mask_before`, a row that says where its mask lies, the greatest loss
            first.
        random: The lowest image_id first, which is a hash.
        of_class: By class id: rows with `share` and `class_confidence` of the class.
        num_images: Images with a mask that were looked at.
        notes: What could not be looked at in time.
    """

    least_confident: list[Row] = field(default_factory=list)
    less_sure: list[Row] = field(default_factory=list)
    random: list[Row] = field(default_factory=list)
    of_class: dict[int, list[Row]] = field(default_factory=dict)
    num_images: int = 0
    notes: list[str] = field(default_factory=list)


def find_candidates(
    run: Run,
    manifest: Manifest,
    number: int,
    deadline: Deadline,
    before: Night | None = None,
) -> Candidates:
    """Find candidates for a page.

    Args:
        run: A published run.
        manifest: Of it.
        number: Candidates of each kind, at most.
        deadline: Until when tables are read; half of the time is for those of the classes.
        before: The run before, if another network made it.

    Raises:
        StoreError: A table can't be read.
        InputError: A table is damaged.
    """
    found = Candidates()
    tables = _Tables(run, found.notes)
    halfway = deadline.within(deadline.left / 2)
    of_class = _of_classes(tables.read(manifest.class_statistics, _OF_CLASSES, halfway), number)
    wanted = pa.array({row["image_id"] for rows in of_class.values() for row in rows}, pa.string())
    known: dict[str, Row] = {}
    earlier = _earlier(tables, before, halfway, found.notes)
    for table in tables.read(manifest.images, _COLUMNS, deadline):
        labelled = table.filter(pc.equal(table["status"], OK))
        found.num_images += labelled.num_rows
        _keep(found.least_confident, labelled, ("mean_confidence", "uri"), number)
        _keep(found.less_sure, earlier.less_sure(labelled), ("change", "uri"), number)
        _keep(found.random, labelled, ("image_id", "uri"), number)
        chosen = labelled.filter(pc.is_in(labelled["image_id"], wanted))
        known |= {row["image_id"]: row for row in chosen.to_pylist()}
    found.of_class = {
        class_id: [{**known[row["image_id"]], **row} for row in rows if row["image_id"] in known]
        for class_id, rows in of_class.items()
    }
    shown = (found.least_confident, found.less_sure, found.random, *found.of_class.values())
    _move_masks(run, [row for rows in shown for row in rows])
    _find_earlier_masks(found.less_sure, earlier, before)
    return found


def _earlier(
    tables: "_Tables", before: Night | None, deadline: Deadline, notes: list[str]
) -> Before:
    """Read what the run before said, without which this one's pictures stand."""
    if before is None:
        return Before(())
    written_to = _written_to(before.run) if before.run else ""
    try:
        return Before(tables.read(before.manifest.images, COLUMNS, deadline), written_to)
    except PipelineError as error:
        notes.append(f"images are not compared with the run before: {error}")
        return Before(())


def _find_earlier_masks(rows: list[Row], earlier: Before, before: Night | None) -> None:
    """Add to each row where the mask of the run before lies."""
    masks = earlier.masks([row["place"] for row in rows])
    if before is not None and before.run is not None:
        _move_masks(before.run, masks)
    for row, mask in zip(rows, masks, strict=True):
        row["mask_before"] = mask


def _of_classes(tables: Iterable[pa.Table], number: int) -> dict[int, list[Row]]:
    """Find images of each class: at random by image_id from its end, whose start is taken."""
    found: dict[int, list[Row]] = {}
    for table in tables:
        for class_id in pc.unique(table["class_id"]).to_pylist():
            kept = found.setdefault(class_id, [])
            kept += _telling(table.filter(pc.equal(table["class_id"], class_id)), number)
            kept.sort(key=_how_telling, reverse=True)
            del kept[number:]
    return found


def _how_telling(row: Row) -> tuple[bool, str, float, str]:
    enough = row["share"] >= _LEAST_SHARE
    return enough, row["image_id"] if enough else "", row["share"], row["image_id"]


def _telling(rows: pa.Table, number: int) -> list[Row]:
    """Take the first rows with enough of a class, then those of the others that have most."""
    enough = pc.greater_equal(rows["pixel_fraction"], _LEAST_SHARE)
    some = _first(rows.filter(enough), [("image_id", "descending")], number)
    if len(some) < number:
        order: _Order = [("pixel_fraction", "descending"), ("image_id", "descending")]
        some += _first(rows.filter(pc.invert(enough)), order, number - len(some))
    return [
        {
            "image_id": row["image_id"],
            "share": row["pixel_fraction"],
            "class_confidence": row["mean_confidence"],
        }
        for row in some
    ]


def _keep(kept: list[Row], table: pa.Table, order: tuple[str, str], number: int) -> None:
    """Keep the first of some rows and of a table's, in order of two columns; null comes last."""
    kept += _first(table, [(name, "ascending") for name in order], number)
    first, second = order
    kept.sort(key=lambda row: (row[first] is None, row[first], row[second]))
    del kept[number:]


def _first(table: pa.Table, order: _Order, number: int) -> list[Row]:
    """Take the first rows in an order that no two rows share, without ordering all the others."""
    rows: list[Row] = table.take(pc.select_k_unstable(table, number, order)).to_pylist()
    return rows


class _Tables:
    """Reads some files of a run's tables, evenly spread over them, as far as there is time."""

    def __init__(self, run: Run, notes: list[str]) -> None:
        self._output = run.output
        self._storage = in_a_hurry(run).storage
        self._notes = notes

    def read(
        self, parts: list[TablePart], columns: list[str], deadline: Deadline
    ) -> Iterator[pa.Table]:
        step = -(-len(parts) // _MAX_FILES) or 1
        uris = [f"{self._output}/{part.file}" for part in parts[::step]]
        with Reads(deadline, _FILES_AT_A_TIME) as reads:
            coming = reads.answers(partial(self._storage.read, uri) for uri in uris)
            for at, uri in enumerate(uris):
                try:
                    data = next(coming)
                except TimeoutError:
                    self._notes.append(_late(uris[at:], len(uris)))
                    return
                yield _columns_of(uri, data, columns)


def _late(unread: list[str], number: int) -> str:
    others = "; the pictures are chosen from the others" if len(unread) < number else ""
    late = f"{len(unread)} of {number} files of a table"
    return f"{late}, from {unread[0]} on: not read in time{others}"


def _columns_of(uri: str, data: bytes, columns: list[str]) -> pa.Table:
    try:
        return read_parquet(data, columns)
    except DAMAGE as error:
        raise damaged(uri, error) from error


def _move_masks(run: Run, rows: list[Row]) -> None:
    """Name the masks where they lie now, be the output moved or a copy."""
    written_to = _written_to(run)
    for row in rows:
        key = row["mask_uri"].removeprefix(written_to)
        row["mask_uri"] = key if "://" in key else f"{run.masks_folder}/{key}"


def _written_to(run: Run) -> str:
    """Return what the URIs of a run's masks begin with in its tables."""
    return masks_folder(run.record.output, run.run_id) + "/"
