"""Pictures on their way to the device."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray


def upload(
    batches: Sequence[Sequence[NDArray[np.uint8]]], device: torch.device
) -> Iterator[torch.Tensor]:
    """Stack each batch and bring it to the device.

    For CUDA a thread stacks the next batch into pinned memory and copies it on a stream of its
    own, while the network runs on the one before. Without CUDA there is nothing to copy.

    Args:
        batches: Images of one size each, uint8 of shape (H, W, 3).
        device: Where to.

    Yields:
        uint8 of shape (N, H, W, 3), in order.
    """
    if device.type != "cuda":
        yield from (torch.from_numpy(np.stack(images)).to(device) for images in batches)
        return
    copy = partial(_copy, device=device, stream=torch.cuda.Stream(device))  # type: ignore[no-untyped-call]  # PyTorch's
    with ThreadPoolExecutor(1) as pool:
        pending = [pool.submit(copy, images) for images in batches[:1]]
        for following in [*batches[1:], None]:
            on_device, copied = pending.pop().result()
            if following is not None:
                pending.append(pool.submit(copy, following))
            compute = torch.cuda.current_stream(device)
            compute.wait_event(copied)
            # Its memory must not go to another tensor of the copy stream while it is read here.
            on_device.record_stream(compute)
            yield on_device


def _copy(
    images: Sequence[NDArray[np.uint8]], device: torch.device, stream: torch.cuda.Stream
) -> tuple[torch.Tensor, torch.cuda.Event]:
    with torch.cuda.stream(stream):
        pinned = torch.from_numpy(np.stack(images)).pin_memory()
        return pinned.to(device, non_blocking=True), stream.record_event()
