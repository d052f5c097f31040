"""Bilinear upsampling as the paper has it: a transposed convolution with a kernel of tents.

Score maps have the shape (N, C, H, W). A layer gives the part of its output that is asked for,
because the paper's networks crop most of their layers, and what is cropped need not be computed.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from fcn.geometry import Geometry

Size = tuple[int, int]


def bilinear_kernel(kernel_size: int) -> torch.Tensor:
    """Make the tent that upsamples bilinearly by (kernel_size + 1) // 2.

    Args:
        kernel_size: 2f for an even factor's kernel, 2f - 1 for one centred on a pixel.

    Returns:
        float32 of shape (kernel_size, kernel_size), 1 at most (`surgery.upsample_filt` of the
        reference implementation, Caffe's `bilinear` filler).
    """
    factor = (kernel_size + 1) // 2
    centre = factor - 1 if kernel_size % 2 else factor - 0.5
    tent = 1 - (torch.arange(kernel_size, dtype=torch.float64) - centre).abs() / factor
    return torch.outer(tent, tent).float()


class FixedUpsample(nn.Module):
    """A transposed convolution without padding whose kernels are bilinear and never learned.

    It is computed as an interpolation between a frame of zeros: C x C kernels of which all but the
    diagonal are zero would cost C times as much for the same numbers.
    """

    def __init__(self, kernel_size: int, stride: int) -> None:
        """Fix the kernel.

        Args:
            kernel_size: 2 * stride, or 2 * stride - 1.
            stride: The factor, an even number.

        Raises:
            ValueError: The kernel is not that of bilinear upsampling by the factor.
        """
        super().__init__()
        if kernel_size not in (2 * stride, 2 * stride - 1) or stride % 2:
            raise ValueError(f"kernel_size={kernel_size} is not bilinear at stride={stride}")
        self.kernel_size = kernel_size
        self.stride = stride

    def follow(self, before: Geometry) -> Geometry:
        """Give the geometry behind this layer."""
        return before.upsampled(self.kernel_size, self.stride)

    def forward(self, scores_NCHW: torch.Tensor, first: int, size: Size) -> torch.Tensor:
        """Upsample.

        Args:
            scores_NCHW: Score maps.
            first: The first row and column of the output that is wanted.
            size: How many rows and columns, (height, width).
        """
        rows, columns = (
            self._source(first, wanted, given)
            for wanted, given in zip(size, scores_NCHW.shape[-2:], strict=True)
        )
        # Negative padding crops, so that no more is interpolated than is wanted.
        needed = F.pad(scores_NCHW, (*columns[:2], *rows[:2]))
        upsampled = self._interpolate(needed)
        top, left = rows[2], columns[2]
        return upsampled[..., top : top + size[0], left : left + size[1]]

    def _source(self, first: int, wanted: int, given: int) -> tuple[int, int, int]:
        """Give the zeros to add around the input along one axis, and where the output starts.

        Output r lies at input (r + 1/2) / f - 1 for an even kernel and (r + 1) / f - 1 for an odd
        one, and no tent reaches further than to one zero beside the input.
        """
        factor, odd = self.stride, self.kernel_size % 2
        last = first + wanted - 1
        begin = (first + odd) // factor - 1
        end = -(-(last + 1) // factor) - 1 if odd else last // factor
        start = (first + odd) % factor + (0 if odd else factor // 2)
        return -begin, end + 1 - given, start

    def _interpolate(self, scores_NCHW: torch.Tensor) -> torch.Tensor:
        height, width = scores_NCHW.shape[-2:]
        if self.kernel_size % 2:
            size = ((height - 1) * self.stride + 1, (width - 1) * self.stride + 1)
            return F.interpolate(scores_NCHW, size, mode="bilinear", align_corners=True)
        size = (height * self.stride, width * self.stride)
        return F.interpolate(scores_NCHW, size, mode="bilinear", align_corners=False)


class LearnedUpsample(nn.ConvTranspose2d):
    """The same layer with dense kernels to be learned; they start bilinear, on the diagonal."""

    def __init__(self, channels: int, kernel_size: int, stride: int) -> None:
        """Start as `FixedUpsample`.

        Args:
            channels: Score maps.
            kernel_size: As there.
            stride: As there.
        """
        super().__init__(channels, channels, kernel_size, stride, bias=False)
        with torch.no_grad():
            self.weight.zero_()
            self.weight[range(channels), range(channels)] = bilinear_kernel(kernel_size)

    def forward(self, scores_NCHW: torch.Tensor, first: int, size: Size) -> torch.Tensor:  # type: ignore[override]  # crops
        """Upsample; arguments as those of `FixedUpsample.forward`."""
        upsampled = super().forward(scores_NCHW)
        return upsampled[..., first : first + size[0], first : first + size[1]]


def make_upsample(mode: str, channels: int, kernel_size: int, stride: int) -> nn.Module:
    """Make an upsampling layer.

    Args:
        mode: `fixed` or `learned`.
        channels: Score maps.
        kernel_size: As for `FixedUpsample`.
        stride: As there.
    """
    if mode == "fixed":
        return FixedUpsample(kernel_size, stride)
    return LearnedUpsample(channels, kernel_size, stride)


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
        """Give the places of outputs in the map, pixels being areas with their centres at 1/2."""
        source, target = self.source[axis], self.target[axis]
        outputs = torch.arange(first, first + size, dtype=torch.float64)
        return ((outputs + 0.5) * (source / target) - 0.5).clamp(min=0, max=source - 1)
