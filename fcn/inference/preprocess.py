"""uint8 pixels to what the network wants: part of it, so that it moves with the weights."""

import torch
from torch import nn

from fcn.weights.record import Checkpoint

_MAX_BYTE = 255


class Preprocess(nn.Module):
    """Scale to [0, 1], subtract the mean, divide by the standard deviation, order the channels."""

    mean: torch.Tensor
    std: torch.Tensor
    factor: torch.Tensor
    shift: torch.Tensor

    def __init__(self, record: Checkpoint) -> None:
        """Take the numbers from the checkpoint record.

        Args:
            record: Whose `mean`, `std` and `channel_order` apply.
        """
        super().__init__()
        shape = (1, record.in_channels, 1, 1)
        self.register_buffer("mean", torch.tensor(record.mean).view(shape), persistent=False)
        self.register_buffer("std", torch.tensor(record.std).view(shape), persistent=False)
        # The same as one multiplication and one addition.
        factor = 1 / (_MAX_BYTE * self.std.double())
        shift = -self.mean.double() / self.std.double()
        self.register_buffer("factor", factor.float(), persistent=False)
        self.register_buffer("shift", shift.float(), persistent=False)
        self._reverse = record.channel_order == "BGR"

    def forward(
        self, images_NHWC: torch.Tensor, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Normalise a batch.

        Args:
            images_NHWC: RGB, 0 to 255 of any dtype, of shape (N, H, W, 3).
            dtype: Of the result.

        Returns:
            Of shape (N, 3, H, W) in the memory format channels_last.
        """
        images_NCHW = images_NHWC.permute(0, 3, 1, 2)
        if self._reverse:
            images_NCHW = images_NCHW.flip(1)
        if images_NCHW.is_cuda:
            return self._at_once(images_NCHW, dtype)
        scaled_NCHW = images_NCHW.float() / _MAX_BYTE
        # In place: a CPU maps every new tensor of this size page by page.
        return scaled_NCHW.sub_(self.mean).div_(self.std).to(dtype)

    def _at_once(self, images_NCHW: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Normalise in one pass, which differs by rounding: a GPU waits for its memory."""
        out = torch.empty(
            images_NCHW.shape,
            dtype=dtype,
            device=images_NCHW.device,
            memory_format=torch.channels_last,
        )
        return torch.addcmul(self.shift, images_NCHW, self.factor, out=out)
