"""The masks of the run before beside this run's: a class has one colour in both."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.images.masks import IGNORE_INDEX
from pipeline.images.overlay import lay_over
from pipeline.labelling.page.pictures import Picture
from pipeline.labelling.records import ClassTotal


class EarlierMasks:
    """Draws masks of another network, whose classes may have other numbers and colours."""

    def __init__(self, ours: Sequence[ClassTotal], theirs: Sequence[ClassTotal]) -> None:
        """Pair the classes by their names.

        Args:
            ours: Classes of this run.
            theirs: Those of the run before; empty if no mask of it is drawn.
        """
        known = {label.name: label.color for label in ours}
        self._new = [label for label in theirs if label.name not in known]
        self._colours = [known.get(one.name, one.color) for one in theirs if _is_class(one)]
        self._found: set[int] = set()

    def __bool__(self) -> bool:
        """Return whether there is a run before whose masks may be drawn."""
        return bool(self._colours)

    def drawn(self, picture: Picture, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Lay a mask of the run before over a picture.

        Args:
            picture: The picture.
            mask: Class indices of the run before, uint8 of shape (H, W).
        """
        self._found |= set(np.unique(mask).tolist())
        return lay_over(picture.pixels, mask, self._colours)

    @property
    def only_there(self) -> list[ClassTotal]:
        """The classes that have been drawn, and that this run does not have."""
        return [label for label in self._new if label.id in self._found]


def colours_of(classes: Sequence[ClassTotal]) -> list[tuple[int, int, int]]:
    """Return the colours of a run's classes by class index."""
    return [one.color for one in classes if _is_class(one)]


def _is_class(label: ClassTotal) -> bool:
    return label.id != IGNORE_INDEX
