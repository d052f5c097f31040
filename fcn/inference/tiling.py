"""Parts of a picture: the tiles of a large one, and what lies around a tile."""

from collections.abc import Iterator
from dataclasses import dataclass

from fcn.geometry import Size


@dataclass(frozen=True)
class Region:
    """Rows `top` to `bottom` and columns `left` to `right` of a picture, the ends excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def first(self) -> Size:
        """Its first row and column."""
        return self.top, self.left

    @property
    def size(self) -> Size:
        """Its (height, width)."""
        return self.bottom - self.top, self.right - self.left

    def within(self, outer: "Region") -> tuple[slice, slice]:
        """Return the rows and columns of this region in a larger one."""
        return (
            slice(self.top - outer.top, self.bottom - outer.top),
            slice(self.left - outer.left, self.right - outer.left),
        )

    def mirrored(self, width: int) -> "Region":
        """Return the same region in the picture flipped left to right.

        Args:
            width: The width of the picture.
        """
        return Region(self.top, width - self.right, self.bottom, width - self.left)

    def surroundings(self, picture: Size, margin: int, stride: int) -> "Region":
        """Add what decides its scores, and begin where the whole picture's coarse layers do.

        Args:
            picture: (height, width).
            margin: Pixels around it.
            stride: The first row and column are multiples of it.
        """
        return Region(
            max(0, self.top - margin) // stride * stride,
            max(0, self.left - margin) // stride * stride,
            min(picture[0], self.bottom + margin),
            min(picture[1], self.right + margin),
        )


def whole(picture: Size) -> Region:
    """Return the region that is all of a picture of this (height, width)."""
    return Region(0, 0, *picture)


def tiles(picture: Size, side: int) -> Iterator[Region]:
    """Cut a picture into tiles, row by row.

    Args:
        picture: (height, width).
        side: Height and width of a tile; less at the right and bottom.
    """
    height, width = picture
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield Region(top, left, min(height, top + side), min(width, left + side))
