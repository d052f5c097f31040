"""Sections: files of the plan whose rows become one file of each table.

Where a section ends follows from the plan alone, so whoever publishes a run cuts it alike.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.labelling.runs import Run
from pipeline.labelling.shards import PlanPart

# A section ends before it holds more, unless one file of the plan does.
_MAX_IMAGES = 100_000


@dataclass(frozen=True)
class Section:
    """Consecutive files of a plan.

    Attributes:
        number: The number of the section, from 0.
        plan: Its files, at least one.
    """

    number: int
    plan: tuple[PlanPart, ...]

    @property
    def shards(self) -> range:
        """Numbers of its shards."""
        first, last = self.plan[0], self.plan[-1]
        return range(first.first_shard, last.first_shard + len(last.num_images))

    def of(self, run: Run) -> Run:
        """Return the run as if its plan were this section: it travels light."""
        return run.narrowed(self.plan)


def sections_of(plan: Sequence[PlanPart]) -> Iterator[Section]:
    """Cut a plan into sections.

    Args:
        plan: Its files, in order.
    """
    number, held, num_images = 0, list[PlanPart](), 0
    for part in plan:
        size = sum(part.num_images)
        if held and num_images + size > _MAX_IMAGES:
            yield Section(number, tuple(held))
            number, held, num_images = number + 1, [], 0
        held.append(part)
        num_images += size
    if held:
        yield Section(number, tuple(held))
