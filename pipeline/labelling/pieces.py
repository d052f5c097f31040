"""Pieces: what of a run is verified at a time, whatever its size.

Of a published run a piece is the shards whose rows are one file of each table, which every version
has cut between shards; of another one, the shards of one file of the plan.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

from pydantic import BaseModel, ConfigDict

from pipeline.labelling.records import Manifest, TablePart
from pipeline.labelling.runs import Run
from pipeline.labelling.shards import PlanPart


class Piece(BaseModel):
    """Consecutive shards of a run; travels as JSON.

    Attributes:
        first_shard: The first of them.
        end_shard: The first after them.
        plan: The files of the plan that hold them.
        missing: Those without a commit record.
        images: The files of the table that hold their rows; None where nothing is published.
        class_statistics: The same of the other table.
    """

    model_config = ConfigDict(frozen=True)

    first_shard: int
    end_shard: int
    plan: list[PlanPart]
    missing: list[int]
    images: list[TablePart] | None = None
    class_statistics: list[TablePart] | None = None

    def shards_of(self, part: PlanPart) -> range:
        """Return those of its shards that a file of the plan holds."""
        end = part.first_shard + len(part.num_images)
        return range(max(self.first_shard, part.first_shard), min(self.end_shard, end))


def pieces_of(run: Run, manifest: Manifest | None, missing: list[int]) -> Iterator[Piece]:
    """Cut a run into pieces.

    Args:
        run: The run.
        manifest: Of it, if it is published.
        missing: Its shards without a commit record, in order.
    """
    cuts = _between_plan_files(run) if manifest is None else _between_table_files(run, manifest)
    ends = [0, *cuts, run.record.num_shards]
    whole = not cuts
    for number, (first, end) in enumerate(pairwise(ends)):
        some = slice(None) if whole else slice(number, number + 1)
        yield Piece(
            first_shard=first,
            end_shard=end,
            plan=_files(run.record.plan, first, end),
            missing=missing[bisect_left(missing, first) : bisect_left(missing, end)],
            images=manifest.images[some] if manifest else None,
            class_statistics=manifest.class_statistics[some] if manifest else None,
        )


def _files(plan: Sequence[PlanPart], first: int, end: int) -> list[PlanPart]:
    return [
        part
        for part in plan
        if part.first_shard < end and part.first_shard + len(part.num_images) > first
    ]


def _between_plan_files(run: Run) -> list[int]:
    return [part.first_shard for part in run.record.plan[1:]]


def _between_table_files(run: Run, manifest: Manifest) -> list[int]:
    """Tell by their numbers of rows where files end; nowhere, if these are not what was planned."""
    after = list(accumulate(run.shard_sizes))
    rows = list(accumulate(part.num_rows for part in manifest.images))
    ends = [bisect_left(after, number) for number in rows]
    agree = all(
        place < len(after) and after[place] == number
        for place, number in zip(ends, rows, strict=True)
    )
    if not agree or len(manifest.images) != len(manifest.class_statistics):
        return []
    return [place + 1 for place in ends[:-1]]
