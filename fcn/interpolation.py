"""Bilinear interpolation of parts of a picture's maps, as if of the whole."""

from dataclasses import dataclass

import torch

from fcn.geometry import Size


@dataclass(frozen=True)
class Window:
    """Where a part lies in the picture that it was cut from, in pixels.

    Attributes:
        first: Row and column of the picture that the part begins with.
        picture: (height, width) of the picture.
    """

    first: Size
    picture: Size


@dataclass(frozen=True)
class Interpolation:
    """What `F.interpolate(mode="bilinear", align_corners=False)` does to a map, for parts of it.

    The factor is the whole map's, which at most sizes is no round number, so that a part can't be
    interpolated by itself. Sizes and places are (height, width) and (row, column).

    Attributes:
        source: Size of the whole map.
        target: Size of the whole output.
    """

    source: Size
    target: Size

    def part(self, part_NCHW: torch.Tensor, begin: Size, first: Size, size: Size) -> torch.Tensor:
        """Compute a part of the output.

        Args:
            part_NCHW: A part of the map; rows and columns that it lacks are taken for its last.
            begin: Where in the map it begins.
            first: Where in the output the result begins.
            size: Size of the result.
        """
        for axis, dim in enumerate((-2, -1)):
            position = self._positions(axis, first[axis], size[axis]).to(part_NCHW.device)
            before = position.long()
            share = (position - before).to(part_NCHW.dtype)
            after = (before + 1).clamp(max=self.source[axis] - 1)
            low, high = (
                part_NCHW.index_select(
                    dim, (index - begin[axis]).clamp(0, part_NCHW.shape[dim] - 1)
                )
                for index in (before, after)
            )
            part_NCHW = torch.lerp(low, high, share[:, None] if axis == 0 else share)
        return part_NCHW

    def sources(self, first: Size, size: Size) -> tuple[Size, Size]:
        """Find the part of the map from which a part of the output is made.

        Returns:
            Its first row and column, and those behind its last.
        """
        rows, columns = (self._positions(axis, first[axis], size[axis]) for axis in (0, 1))
        height, width = self.source
        behind = (min(height, int(rows[-1]) + 2), min(width, int(columns[-1]) + 2))
        return (int(rows[0]), int(columns[0])), behind

    def _positions(self, axis: int, first: int, size: int) -> torch.Tensor:
        """Return the places of outputs in the map, pixels being areas with their centres at 1/2."""
        source, target = self.source[axis], self.target[axis]
        outputs = torch.arange(first, first + size, dtype=torch.float64)
        return ((outputs + 0.5) * (source / target) - 0.5).clamp(min=0, max=source - 1)
