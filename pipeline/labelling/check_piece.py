"""Check a piece of a run: its plan, commit records, masks and table rows, in one pass.

Of the plan one file is in memory, of everything else some rows.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field

from pipeline.labelling.breaks import Breaks
from pipeline.labelling.check_mask import check_row, chosen, first_masks_folder
from pipeline.labelling.check_tables import TableCheck
from pipeline.labelling.check_tars import TarMasks
from pipeline.labelling.cost import Work
from pipeline.labelling.mask_tar import is_tar_of, tar_uri
from pipeline.labelling.pieces import Piece
from pipeline.labelling.recount import Recount
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import COMMIT, OK, PLAN, of_any_version
from pipeline.labelling.shards import PlanPart
from pipeline.memory import release_free_memory
from pipeline.store.in_flight import answers_of
from pipeline.store.parquet import DAMAGE, read_parquet

_ROWS_AT_A_TIME = 2_000
_COMMITS_IN_FLIGHT = 16
_PLACE_COLUMNS = ["image_id", "status", "mask_uri", "mask_offset", "mask_bytes"]
_PLAN_COLUMNS = ["shard", "image_id", "key", "uri", "etag", "mask_key", "image_offset"]
_Planned = dict[str, dict[str, Any]]


class Checked(BaseModel):
    """What was found in a piece; travels as JSON."""

    breaks: Breaks = Field(default_factory=Breaks)
    count: Recount = Field(default_factory=Recount)


@dataclass(frozen=True)
class Check:
    """Checks pieces of a run; travels to workers.

    Attributes:
        run: The run; its plan is not needed.
        threads: Masks read at a time.
        share: Of the masks that are read, 0 to 1.
    """

    run: Run
    threads: int
    share: float = 1.0

    def __call__(self, piece: Piece) -> Checked:
        """Check one.

        Raises:
            StoreError: The store did not answer, which proves nothing.
        """
        found = Checked()
        tables = None
        if piece.images is not None and piece.class_statistics is not None:
            tables = TableCheck(self.run, piece.images, piece.class_statistics, found.breaks)
        with ThreadPoolExecutor(self.threads) as pool:
            for part in piece.plan:
                for row, broken in self._rows(part, piece, found, pool):
                    self._judge(row, broken, found, tables)
                release_free_memory()
        if tables is not None:
            tables.end()
        return found

    def _judge(
        self,
        row: dict[str, Any],
        broken: list[tuple[str, str]],
        found: Checked,
        tables: TableCheck | None,
    ) -> None:
        for kind, what in broken:
            found.breaks.add(kind, f"{row['key']}: {what}")
        found.count.add(row)
        found.count.num_read += self._reads(row)
        if tables is not None:
            tables.check(row)

    def _rows(
        self, part: PlanPart, piece: Piece, found: Checked, pool: ThreadPoolExecutor
    ) -> Iterator[tuple[dict[str, Any], list[tuple[str, str]]]]:
        """Read the rows of a plan file's shards, each with what its mask contradicts."""
        missing = set(piece.missing)
        shards = [shard for shard in piece.shards_of(part) if shard not in missing]
        plan = self._plan(part, found.breaks)
        for shard, commits in zip(shards, self._commits(shards, found.breaks), strict=True):
            expected = self._planned(plan, shard)
            if commits is not None:
                _check_plan(self.run, commits, expected, found.breaks)
                work = Work.of_metadata(commits.schema.metadata)
                found.count.work.add(work, commits.num_rows)
                yield from self._checked(commits, pool, found)
            for planned in expected.values():
                found.breaks.add("planned image without a row", str(planned["key"]))

    def _checked(
        self, commits: pa.Table, pool: ThreadPoolExecutor, found: Checked
    ) -> Iterator[tuple[dict[str, Any], list[tuple[str, str]]]]:
        tars = self._tars(commits, found) if self.run.masks_in_tars else None
        for start in range(0, commits.num_rows, _ROWS_AT_A_TIME):
            rows = commits.slice(start, _ROWS_AT_A_TIME).to_pylist()
            yield from zip(rows, pool.map(partial(self._check_row, tars), rows), strict=True)

    def _tars(self, commits: pa.Table, found: Checked) -> TarMasks:
        places = commits.select(_PLACE_COLUMNS).to_pylist()
        read = [row for row in places if row["mask_uri"] and self._reads(row)]
        tars = TarMasks(self.run, read, whole=self.share == 1)
        found.count.num_tars += len(tars)
        for uri, reason in tars.torn:
            found.breaks.add("tar is unreadable", f"{uri}: {reason}")
        return tars

    def _reads(self, row: dict[str, Any]) -> bool:
        return row["status"] == OK and chosen(self.run, row["image_id"], self.share)

    def _check_row(self, tars: TarMasks | None, row: dict[str, Any]) -> list[tuple[str, str]]:
        if not self._reads(row):
            return check_row(self.run, row, None)
        if tars is None:
            return check_row(self.run, row, self.run.storage.find_extent)
        return [*check_row(self.run, row, tars.find), *tars.problems(row)]

    def _plan(self, part: PlanPart, breaks: Breaks) -> pa.Table:
        """Read a file of the plan; nothing, if it can't be read."""
        uri = f"{self.run.folder}/plan/{part.file}"
        found = self._table(uri, self.run.storage.find(uri), breaks, _PLAN_COLUMNS)
        return PLAN.empty_table() if found is None else found

    def _planned(self, plan: pa.Table, shard: int) -> _Planned:
        """Take what a file of the plan says of a shard."""
        masks = first_masks_folder(self.run)
        tar = tar_uri(masks, shard) if self.run.masks_in_tars else None
        rows = plan.filter(pc.equal(plan["shard"], shard)).to_pylist()
        return {
            row["image_id"]: {
                **{name: row[name] for name in ("shard", "key", "uri", "etag")},
                "image_offset": row.get("image_offset"),  # which earlier versions have not
                "mask_uri": tar or f"{masks}/{row['mask_key']}",
            }
            for row in rows
        }

    def _commits(self, shards: list[int], breaks: Breaks) -> Iterator[pa.Table | None]:
        """Read the commit records of some shards; None for those that can't be read."""
        uris = list(map(self.run.commit_uri, shards))
        records = answers_of(self.run.storage.find, uris, _COMMITS_IN_FLIGHT)
        for shard, uri, data in zip(shards, uris, records, strict=True):
            found = self._table(uri, data, breaks)
            table = None if found is None else of_any_version(found, COMMIT)
            if table is not None and not table.schema.equals(COMMIT):
                breaks.add("commit record has other columns", f"shard {shard}")
                table = None
            yield table

    def _table(
        self, uri: str, data: bytes | None, breaks: Breaks, columns: list[str] | None = None
    ) -> pa.Table | None:
        """Read one Parquet file of the run; a break and None if it is missing or damaged."""
        name = uri.removeprefix(f"{self.run.output}/")
        if data is None:
            breaks.add("file is missing", name)
            return None
        try:
            return read_parquet(data, columns)
        except DAMAGE as error:
            breaks.add("file is unreadable", f"{name}: {error}")
            return None


def _check_plan(run: Run, commits: pa.Table, expected: _Planned, breaks: Breaks) -> None:
    here, first = run.masks_folder, first_masks_folder(run)
    columns = ["shard", "image_id", "status", "key", "uri", "etag", "image_offset", "mask_uri"]
    for row in commits.select(columns).to_pylist():
        planned = expected.pop(row["image_id"], None)
        if planned is None:
            breaks.add("row without a planned image, or second row", row["key"])
            continue
        if row["status"] != OK:
            planned["mask_uri"] = None
        elif row["mask_uri"]:
            # A run that was resumed after its output was moved or copied has both places.
            row["mask_uri"] = row["mask_uri"].replace(here, first, 1)
            if run.masks_in_tars and is_tar_of(row["mask_uri"], first, planned["shard"]):
                planned["mask_uri"] = row["mask_uri"]
        for name, value in planned.items():
            if row[name] != value:
                breaks.add("row differs from the plan", f"{name}: {row[name]}, planned {value}")
