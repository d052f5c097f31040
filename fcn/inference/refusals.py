"""Sizes that did not fit in a device's memory, which are not tried again with every batch."""

# So often a part is passed over before it is tried again: memory may have been short for a moment,
# and a failed attempt costs as much as a batch.
_TIMES_PASSED_OVER = 100

# Number, height and width of images that go through the network together.
Part = tuple[int, int, int]


class Refusals:
    """The parts that did not fit, each remembered for a while."""

    def __init__(self) -> None:
        """Begin with none."""
        self._left: dict[Part, int] = {}

    def remember(self, part: Part) -> None:
        """Take down that a part did not fit.

        Args:
            part: That was tried.
        """
        self._left[part] = _TIMES_PASSED_OVER

    def passes_over(self, part: Part) -> bool:
        """Say whether a part need not be tried; each answer counts.

        Args:
            part: That may be tried.
        """
        left = self._left.pop(part, 0)
        if left > 1:
            self._left[part] = left - 1
        return left > 0
