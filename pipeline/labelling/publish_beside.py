"""Publishing beside the chain: sections whose shards are all committed, by workers.

Nothing rests on it: `publish` makes what is missing at the end. So a publication takes seconds
after the last shard, and the driver holds no table.
"""

from array import array
from bisect import bisect_right

from pipeline.cluster.beside import Beside
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import Receipt
from pipeline.labelling.section_record import section_name
from pipeline.labelling.section_tables import publish_section
from pipeline.labelling.sections import Section, sections_of
from pipeline.labelling.shards import Shards

# A section takes seconds, and a store may need minutes to answer.
_PATIENCE_S = 120.0


class PublishBeside:
    """Sees which shards are committed, and has their sections published."""

    def __init__(self, run: Run, todo: Shards) -> None:
        """Begin with the sections of which nothing is left to do.

        Args:
            run: What is labelled.
            todo: The shards without a commit record.
        """
        self._sections = list(sections_of(run.record.plan))
        self._first_shards = array("i", (one.shards.start for one in self._sections))
        self._left = bytearray(run.record.num_shards)
        self._num_left = array("i", [0] * len(self._sections))
        for shard in todo.numbers:
            self._left[shard] = True
            self._num_left[self._section_of(shard)] += 1
        # The plan is heavy, and each section has its own part of it.
        self._beside = Beside("publishing a section", PublishOne(run.narrowed(())))
        there = set(run.storage.children(run.sections_folder))
        self._beside.add(
            section
            for section, num_left in zip(self._sections, self._num_left, strict=True)
            if not num_left and section_name(section.number) not in there
        )

    def saw(self, receipt: Receipt) -> None:
        """Take note that a shard is committed."""
        shard = receipt["shard"]
        if self._left[shard]:
            self._left[shard] = False
            section = self._section_of(shard)
            self._num_left[section] -= 1
            if not self._num_left[section]:
                self._beside.add([self._sections[section]])
        self._beside.go_on()

    def finish(self) -> None:
        """Wait for what is under way, as long as it gets on."""
        self._beside.finish(_PATIENCE_S)

    def _section_of(self, shard: int) -> int:
        return bisect_right(self._first_shards, shard) - 1


class PublishOne:
    """Publishes a section; travels to workers."""

    def __init__(self, run: Run) -> None:
        """Take the run along, without its plan.

        Args:
            run: The run of the sections.
        """
        self._run = run

    def __call__(self, section: Section) -> None:
        """Publish one."""
        publish_section(self._run, section)
