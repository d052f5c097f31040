"""Timeline: how many images a run has done when, in as few steps as a page can show.

All of it are whole numbers, and how wide a step is depends on the first and the last moment alone:
whoever sums up, in whatever order and groups, gets the same.
"""

from collections import Counter
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

_MAX_STEPS = 96


class Timeline(BaseModel):
    """Images by the moment at which their shard was written.

    Attributes:
        started_at: When the first step begins, in seconds since the epoch.
        step_s: How long each step is, in seconds.
        num_images: Images of each step.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    started_at: int
    step_s: int
    num_images: list[int]


class TimelineSum(BaseModel):
    """Sums up; holds `_MAX_STEPS` numbers, however long the run was.

    Attributes:
        steps: Images by the number of the step, from the epoch on.
        step_s: How long each step is, in seconds.
    """

    steps: Counter[int] = Field(default_factory=Counter)
    step_s: int = 1

    def add(self, spans: Iterable[tuple[float, float]], num_images: int) -> None:
        """Add a shard.

        Args:
            spans: When each host began with it and was done, in seconds since the epoch; none in
                records of earlier versions.
            num_images: Number of images of the shard.
        """
        moments = [moment for span in spans for moment in span]
        if moments:
            self._count(min(moments), 0)
            self._count(max(moments), num_images)

    def add_sum(self, other: "TimelineSum") -> None:
        """Add what other shards have summed up to."""
        while self.step_s < other.step_s:
            self._widen()
        for step, number in other.steps.items():
            self._count(step * other.step_s, number)

    def _count(self, moment: float, number: int) -> None:
        self.steps[int(moment) // self.step_s] += number
        while max(self.steps) - min(self.steps) >= _MAX_STEPS:
            self._widen()

    def _widen(self) -> None:
        wider: Counter[int] = Counter()
        for step, known in self.steps.items():
            wider[step // 2] += known
        self.steps, self.step_s = wider, 2 * self.step_s

    def total(self) -> Timeline | None:
        """Return the sum; None if no shard says when it was done."""
        if not self.steps:
            return None
        first, last = min(self.steps), max(self.steps)
        return Timeline(
            started_at=first * self.step_s,
            step_s=self.step_s,
            num_images=[self.steps[step] for step in range(first, last + 1)],
        )
