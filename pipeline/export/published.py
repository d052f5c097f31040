"""What a run has published of its images, as export and select read it: table by table, in order.

A run's tables are in order of the key. A key is the image's place below its input, or all of its
place, so that they are in order of the place, too.
"""

from collections.abc import Collection, Iterable, Iterator
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.labelling.records import Manifest
from pipeline.labelling.runs import Run, damaged
from pipeline.labelling.schema import SELECTION
from pipeline.store.extent import place_of
from pipeline.store.parquet import DAMAGE, read_parquet

_READ = pa.schema([SELECTION.field(name) for name in SELECTION.names if name != "reason"])
# `place` is that of `place_of`, `run` the number of the run among those that are read.
PUBLISHED = pa.schema(
    [
        *_READ,
        ("shares", pa.map_(pa.int32(), pa.float64())),
        ("place", pa.string()),
        ("run", pa.int32()),
    ]
)
_SHARES = ["image_id", "class_id", "pixel_fraction"]
_ROWS_AT_A_TIME = 1_000


def published_tables(
    number: int, run: Run, manifest: Manifest, shares_of: Collection[int]
) -> Iterator[pa.Table]:
    """Read the images table of a run, file by file.

    Args:
        number: What stands in the column `run`.
        run: A finished run.
        manifest: Its manifest.
        shares_of: Classes whose share of an image's pixels is read, too.

    Yields:
        Rows of `PUBLISHED`, in order of the place.

    Raises:
        InputError: A table is damaged, or in another order.
    """
    shares, last = _Shares(run, manifest, shares_of), ""
    for table in run.published(manifest, _READ.names):
        places = _places(table, last, f"{run.output}/{manifest.images[0].file}")
        last = places[-1] if places else last
        added = {
            "shares": [shares.of(image_id) for image_id in table["image_id"].to_pylist()],
            "place": places,
            "run": [number] * table.num_rows,
        }
        columns = [
            *table.columns,
            *(pa.array(of, PUBLISHED.field(n).type) for n, of in added.items()),
        ]
        yield pa.table(columns, schema=PUBLISHED)


def in_pieces(tables: Iterable[pa.Table]) -> Iterator[dict[str, Any]]:
    """Make rows of tables, some at a time.

    Args:
        tables: Each may be larger than what its rows could take as objects.
    """
    for table in tables:
        for batch in table.to_batches(max_chunksize=_ROWS_AT_A_TIME):
            yield from batch.to_pylist()


def _places(table: pa.Table, last: str, uri: str) -> list[str]:
    """Return the places of a table's images. Raises InputError if one is not in order."""
    places = []
    for row in table.select(["uri", "image_offset"]).to_pylist():
        if (place := place_of(row)) < last:
            raise damaged(uri, ValueError(f"{row['uri']} is not in order"))
        places.append(last := place)
    return places


class _Shares:
    """The class statistics of a run, which are in the order of its images."""

    def __init__(self, run: Run, manifest: Manifest, classes: Collection[int]) -> None:
        self._images = _by_image(run, manifest, classes) if classes else iter(())
        self._ahead = next(self._images, None)

    def of(self, image_id: str) -> list[tuple[int, float]]:
        """Return the shares of the next image that is asked for, by class id."""
        if self._ahead is None or self._ahead[0] != image_id:
            return []
        found = self._ahead[1]
        self._ahead = next(self._images, None)
        return found


def _by_image(
    run: Run, manifest: Manifest, classes: Collection[int]
) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    wanted = pa.array(classes, pa.int32())
    tables = (
        table.filter(pc.is_in(table["class_id"], wanted)) for table in _statistics(run, manifest)
    )
    for image_id, rows in groupby(in_pieces(tables), key=lambda row: row["image_id"]):
        yield image_id, [(row["class_id"], row["pixel_fraction"]) for row in rows]


def _statistics(run: Run, manifest: Manifest) -> Iterator[pa.Table]:
    for part in manifest.class_statistics:
        uri = f"{run.output}/{part.file}"
        data = run.storage.read(uri)
        try:
            yield read_parquet(data, _SHARES)
        except DAMAGE as error:
            raise damaged(uri, error) from error
