"""Bilinear upsampling as the paper has it: a transposed convolution with a kernel of tents.

Score maps have the shape (N, C, H, W). A layer gives the part of its output that is asked for,
because the paper's networks crop most of their layers, and what is cropped need not be computed.
"""

import torch
import torch.nn.functional as F
from torch import nn

from fcn.geometry import Geometry, Size


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
        """Return the geometry behind this layer."""
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
        """Return the zeros to add around the input along one axis, and where the output starts.

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
