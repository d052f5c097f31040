"""Pictures on their way to the device."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.dlpack import from_dlpack

from fcn.inference.memory import if_it_fits

Images = Sequence[NDArray[np.uint8]]


class Uploader:
    """Stacks batches and brings them to the device.

    For CUDA a thread stacks the next batch into pinned memory and copies it on a stream of its
    own, while the network runs on the one before. Without CUDA there is nothing to copy.
    """

    def __init__(self, device: torch.device) -> None:
        """Prepare the stream and its thread.

        Args:
            device: Where to.
        """
        self._device = device
        if device.type == "cuda":
            self._thread = ThreadPoolExecutor(1)
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # PyTorch's

    def upload(self, batches: Sequence[Images]) -> Iterator[torch.Tensor | None]:
        """Bring batches to the device.

        Args:
            batches: Images of one size each, uint8 of shape (H, W, 3).

        Yields:
            uint8 of shape (N, H, W, 3), in order; None for a batch that does not fit.
        """
        if self._device.type != "cuda":
            yield from (if_it_fits(stack, images, self._device) for images in batches)
            return
        pending = [self._thread.submit(if_it_fits, self._copy, images) for images in batches[:1]]
        for following in [*batches[1:], None]:
            copied = pending.pop().result()
            if following is not None:
                pending.append(self._thread.submit(if_it_fits, self._copy, following))
            yield None if copied is None else self._ready(*copied)

    def _copy(self, images: Images) -> tuple[torch.Tensor, torch.cuda.Event]:
        # Whatever the thread allocates belongs to the stream's GPU.
        with torch.cuda.stream(self._stream):
            pinned = stack(images, self._device)
            return pinned.to(self._device, non_blocking=True), self._stream.record_event()

    def _ready(self, on_device: torch.Tensor, copied: torch.cuda.Event) -> torch.Tensor:
        compute = torch.cuda.current_stream(self._device)
        compute.wait_event(copied)
        # Its memory must not go to another tensor of the copy stream while it is read here.
        on_device.record_stream(compute)
        return on_device


def stack(images: Images, device: torch.device) -> torch.Tensor:
    """Stack arrays of one shape on the CPU, for a GPU in page-locked memory.

    Args:
        images: uint8, of any shape.
        device: Where they go next.
    """
    if device.type == "cuda":
        pinned = torch.empty((len(images), *images[0].shape), dtype=torch.uint8, pin_memory=True)
        np.stack(images, out=pinned.numpy())
        return pinned
    # One image is not copied: it may be a picture of gigabytes. A decoder's arrays are read-only,
    # which `from_numpy` warns of; nothing writes to them.
    return from_dlpack(images[0][None] if len(images) == 1 else np.stack(images))
