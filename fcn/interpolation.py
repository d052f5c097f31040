"""Bilinear interpolation of parts of a picture's maps, as if of the whole."""

import functools
from dataclasses import dataclass

import torch

from fcn.geometry import Size

# Of axes and the parts of them that tiles are made from: 24 bytes per row or column each.
_NUM_KEPT = 512

_Places = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


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
            before, after, share = self._places(axis, first[axis], size[axis], part_NCHW)
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
        return _positions(self.source[axis], self.target[axis], first, size)

    def _places(self, axis: int, first: int, size: int, part_NCHW: torch.Tensor) -> _Places:
        """Return for each output the rows or columns before and behind it, and its share."""
        find = _find_places if torch.compiler.is_compiling() else _kept_places
        like = part_NCHW.device, part_NCHW.dtype
        return find(self.source[axis], self.target[axis], first, size, *like)


def _positions(source: int, target: int, first: int, size: int) -> torch.Tensor:
    """Return the places of outputs in the map, pixels being areas with their centres at 1/2."""
    outputs = torch.arange(first, first + size, dtype=torch.float64)
    return ((outputs + 0.5) * (source / target) - 0.5).clamp(min=0, max=source - 1)


def _find_places(  # noqa: PLR0913, PLR0917 - what `Interpolation.part` has of an axis
    source: int, target: int, first: int, size: int, device: torch.device, dtype: torch.dtype
) -> _Places:
    position = _positions(source, target, first, size).to(device)
    before = position.long()
    share = (position - before).to(dtype)
    return before, (before + 1).clamp(max=source - 1), share


@functools.lru_cache(maxsize=_NUM_KEPT)
def _kept_places(  # noqa: PLR0913, PLR0917 - likewise
    source: int, target: int, first: int, size: int, device: torch.device, dtype: torch.dtype
) -> _Places:
    """Find them once: on a GPU each costs a copy that the CPU waits for."""
    # Who trains may meet them later, and inference's tensors have no gradients.
    with torch.inference_mode(mode=False):
        return _find_places(source, target, first, size, device, dtype)
