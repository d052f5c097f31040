"""Shards of a plan: which are left to do, and the file of the plan that holds each.

A run may have a million shards, so they are kept as numbers, and become rows when they are asked
for.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from pydantic import BaseModel, ConfigDict

from pipeline.labelling.schema import ShardGroup, ShardTask

# Groups are a share of what is left, so that fetching is parallel to the end.
_GROUPS_LEFT = 32


class PlanPart(BaseModel):
    """One file of the plan; row group g holds shard `first_shard` + g of `num_images[g]` images."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    file: str
    first_shard: int
    num_images: list[int]


class Shards(Sequence[ShardTask]):
    """Some shards of a plan, in order; four bytes each."""

    def __init__(self, folder: str, plan: Sequence[PlanPart], numbers: Iterable[int]) -> None:
        """Name the plan.

        Args:
            folder: URI of the plan's files.
            plan: The files, in order.
            numbers: The shards' numbers, in order.
        """
        self._folder = folder
        self._plan = plan
        self._numbers = array("i", numbers)
        self._first_shards = array("i", (part.first_shard for part in plan))

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> ShardTask: ...
    @overload
    def __getitem__(self, index: slice) -> "Shards": ...
    def __getitem__(self, index: int | slice) -> "ShardTask | Shards":
        if isinstance(index, slice):
            return Shards(self._folder, self._plan, self._numbers[index])
        shard = self._numbers[index]
        part = self._part(shard)
        return ShardTask(shard=shard, plan_uri=self._uri(part), row_group=shard - part.first_shard)

    @property
    def numbers(self) -> Sequence[int]:
        """Their numbers, in order."""
        return self._numbers

    @property
    def num_images(self) -> int:
        """Number of their images."""
        return sum(
            part.num_images[shard - part.first_shard]
            for shard in self._numbers
            for part in (self._part(shard),)
        )

    def groups(self) -> Iterator[ShardGroup]:
        """Cut them into groups of shards of one file of the plan.

        A group holds at most what a file has, and less where little is left: a small run, like the
        end of a large one, is fetched in many places at once.
        """
        start, number = 0, len(self._numbers)
        while start < number:
            part = self._part(self._numbers[start])
            limit = start + max(1, (number - start) // _GROUPS_LEFT)
            after = part.first_shard + len(part.num_images)
            end = bisect_left(self._numbers, after, start, min(limit, number))
            groups = [shard - part.first_shard for shard in self._numbers[start:end]]
            yield ShardGroup(
                plan_uri=self._uri(part), first_shard=part.first_shard, row_groups=groups
            )
            start = end

    def parts(self, size: int) -> Iterator["Shards"]:
        """Cut them into parts of a size, the last of which may be smaller.

        Args:
            size: Shards of a part.
        """
        return (self[start : start + size] for start in range(0, len(self), size))

    def _part(self, shard: int) -> PlanPart:
        return self._plan[bisect_right(self._first_shards, shard) - 1]

    def _uri(self, part: PlanPart) -> str:
        return f"{self._folder}/{part.file}"


def tasks_of(group: ShardGroup) -> Iterator[ShardTask]:
    """List the shards of a group, one by one.

    Args:
        group: As Ray hands it to fetch.
    """
    for row_group in map(int, group["row_groups"]):
        yield ShardTask(
            shard=group["first_shard"] + row_group,
            plan_uri=group["plan_uri"],
            row_group=row_group,
        )
