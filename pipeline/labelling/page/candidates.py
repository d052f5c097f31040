"""Which images of a run a page may show: the doubtful, some at random, some of each class.

Read from the published tables, a bounded number of files at a time, and told by what stands there
alone: the same run has the same candidates.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.labelling.records import Manifest, TablePart
from pipeline.labelling.runs import Run, damaged, masks_folder
from pipeline.labelling.schema import OK
from pipeline.store.parquet import DAMAGE, read_parquet

# Files of each table that are read, each of 100,000 images: of a larger run every so manieth.
_MAX_FILES = 10
# A class is shown where it is more than a speck.
_LEAST_SHARE = 0.01
_COLUMNS = [
    *("image_id", "key", "uri", "etag", "num_bytes", "image_offset", "status", "mean_confidence"),
    *("mask_uri", "mask_offset", "mask_bytes"),
]
_OF_CLASSES = ["image_id", "class_id", "pixel_fraction", "mean_confidence"]

# A row of the images table, its mask's place as the output lies now.
Row = dict[str, Any]


@dataclass
class Candidates:
    """Images of a run.

    Attributes:
        least_confident: The lowest mean confidence first.
        random: The lowest image_id first, which is a hash.
        of_class: By class id: rows with `share` and `class_confidence` of the class.
        num_images: Images with a mask that were looked at.
    """

    least_confident: list[Row] = field(default_factory=list)
    random: list[Row] = field(default_factory=list)
    of_class: dict[int, list[Row]] = field(default_factory=dict)
    num_images: int = 0


def find_candidates(run: Run, manifest: Manifest, number: int) -> Candidates:
    """Find candidates for a page.

    Args:
        run: A published run.
        manifest: Of it.
        number: Candidates of each kind, at most.

    Raises:
        StoreError: A table can't be read.
        InputError: A table is damaged.
    """
    of_class = _of_classes(run, manifest, number)
    wanted = pa.array({row["image_id"] for rows in of_class.values() for row in rows}, pa.string())
    found = Candidates()
    known: dict[str, Row] = {}
    for table in _tables(run, manifest.images, _COLUMNS):
        labelled = table.filter(pc.equal(table["status"], OK))
        found.num_images += labelled.num_rows
        _keep(found.least_confident, labelled, ("mean_confidence", "uri"), number)
        _keep(found.random, labelled, ("image_id", "uri"), number)
        chosen = labelled.filter(pc.is_in(labelled["image_id"], wanted))
        known |= {row["image_id"]: row for row in chosen.to_pylist()}
    found.of_class = {
        class_id: [{**known[row["image_id"]], **row} for row in rows if row["image_id"] in known]
        for class_id, rows in of_class.items()
    }
    _move_masks(run, [*found.least_confident, *found.random, *_all(found.of_class)])
    return found


def _of_classes(run: Run, manifest: Manifest, number: int) -> dict[int, list[Row]]:
    """Find images of each class: at random by image_id from its end, whose start is taken."""
    found: dict[int, list[Row]] = {}
    for table in _tables(run, manifest.class_statistics, _OF_CLASSES):
        order = pc.sort_indices(table, [("class_id", "ascending"), ("image_id", "descending")])
        ordered = table.take(order)
        for class_id in pc.unique(table["class_id"]).to_pylist():
            kept = found.setdefault(class_id, [])
            kept += _telling(ordered.filter(pc.equal(ordered["class_id"], class_id)), number)
            kept.sort(key=_how_telling, reverse=True)
            del kept[number:]
    return found


def _how_telling(row: Row) -> tuple[bool, str, float]:
    enough = row["share"] >= _LEAST_SHARE
    return enough, row["image_id"] if enough else "", row["share"]


def _telling(rows: pa.Table, number: int) -> list[Row]:
    """Take the first rows with enough of a class, then those of the others that have most."""
    enough = pc.greater_equal(rows["pixel_fraction"], _LEAST_SHARE)
    some = [*rows.filter(enough).slice(0, number).to_pylist()]
    others = rows.filter(pc.invert(enough)).sort_by([("pixel_fraction", "descending")])
    some += others.slice(0, number - len(some)).to_pylist()
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
    keys = [(name, "ascending") for name in order]
    kept += table.take(pc.sort_indices(table, keys).slice(0, number)).to_pylist()
    first, second = order
    kept.sort(key=lambda row: (row[first] is None, row[first], row[second]))
    del kept[number:]


def _tables(run: Run, parts: list[TablePart], columns: list[str]) -> Iterator[pa.Table]:
    """Read columns of some files of a table, evenly spread over it."""
    step = -(-len(parts) // _MAX_FILES) or 1
    for part in parts[::step]:
        uri = f"{run.output}/{part.file}"
        data = run.storage.read(uri)
        try:
            yield read_parquet(data, columns)
        except DAMAGE as error:
            raise damaged(uri, error) from error


def _all(of_class: dict[int, list[Row]]) -> Iterator[Row]:
    for rows in of_class.values():
        yield from rows


def _move_masks(run: Run, rows: list[Row]) -> None:
    """Name the masks where they lie now, be the output moved or a copy."""
    written_to = masks_folder(run.record.output, run.run_id) + "/"
    for row in rows:
        key = row["mask_uri"].removeprefix(written_to)
        row["mask_uri"] = key if "://" in key else f"{run.masks_folder}/{key}"
