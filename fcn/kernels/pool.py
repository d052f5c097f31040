"""2x2 max pools of stride 2 that keep no indices, in a third of the time of PyTorch's."""

import torch
import triton
import triton.language as tl

_BLOCK = 1024


@triton.jit  # type: ignore[untyped-decorator]  # Triton's
def _max_pool(  # type: ignore[no-untyped-def]  # Triton's types are no Python types
    features,
    pooled,
    height,
    width,
    pooled_height,
    pooled_width,
    num_channels,
    BLOCK: tl.constexpr,
):
    # One program is a block of one output row, channels running fastest. Rows are on the axis of
    # the grid that has room for more than 65,535.
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < pooled_width * num_channels
    column, channel = place // num_channels, place % num_channels
    image, pooled_row = row // pooled_height, row % pooled_height
    below = 2 * pooled_row + 1 < height
    right = 2 * column + 1 < width
    first = (image * height + 2 * pooled_row) * width * num_channels
    corner = features + first + 2 * column * num_channels + channel
    lowest = float("-inf")
    best = tl.load(corner, mask=inside, other=lowest)
    for down in tl.static_range(2):
        for along in tl.static_range(2):
            if down + along > 0:
                seen = inside & (below | (down == 0)) & (right | (along == 0))
                offset = (down * width + along) * num_channels
                value = tl.load(corner + offset, mask=seen, other=lowest)
                best = tl.maximum(best, value, propagate_nan=tl.PropagateNan.ALL)
    tl.store(pooled + row * pooled_width * num_channels + place, best, mask=inside)


def max_pool(features_NCHW: torch.Tensor) -> torch.Tensor:
    """Pool as `nn.MaxPool2d(2, 2, ceil_mode=True)` does.

    Args:
        features_NCHW: Floating point, channels last.

    Returns:
        The pooled features, channels last.
    """
    number, channels, height, width = features_NCHW.shape
    rows, columns = -(-height // 2), -(-width // 2)
    pooled = torch.empty(
        (number, channels, rows, columns),
        dtype=features_NCHW.dtype,
        device=features_NCHW.device,
        memory_format=torch.channels_last,
    )
    blocks = (number * rows, triton.cdiv(columns * channels, _BLOCK))
    _max_pool[blocks](
        *(features_NCHW, pooled, height, width, rows, columns, channels), BLOCK=_BLOCK
    )
    return pooled
