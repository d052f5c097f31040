"""One replica: uint8 images in, class indices and exact counts out.

Same-size images go through the network together; nothing is resized. Argmax and counting happen
on the device, so that one byte per pixel comes back.
"""

import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fcn.checkpoint import Checkpoint
from fcn.preprocess import Preprocess

# Confidences are summed as whole multiples of 2^-20: such sums are exact in float64 up to 2^33
# pixels, so that neither their order nor the number of threads changes them.
_CONFIDENCE_STEPS = 1 << 20

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image.

    Attributes:
        mask: Class indices, uint8 of shape (H, W).
        class_pixels: Pixels per class, int64 of shape (num_classes,), summing to H * W.
        class_confidence: Mean softmax value of the winning class over the pixels of each class,
            float64 of shape (num_classes,) in [0, 1]; NaN for classes without pixels.
        mean_confidence: The same over all pixels.
    """

    mask: NDArray[np.uint8]
    class_pixels: NDArray[np.int64]
    class_confidence: NDArray[np.float64]
    mean_confidence: float


class Predictor:
    """A network on its device.

    The same list of images gives the same bytes on the same machine.
    """

    def __init__(  # noqa: PLR0913 - keyword-only, one per thing that differs between machines
        self,
        network: nn.Module,
        record: Checkpoint,
        *,
        device: str = "cpu",
        precision: str = "fp32",
        batch_size: int = 8,
        num_threads: int | None = None,
    ) -> None:
        """Move the network to the device.

        Args:
            network: Takes and gives what `fcn.models` says.
            record: The checkpoint record of its weights.
            device: As PyTorch names it.
            precision: `fp32`, or `bf16` for autocast.
            batch_size: Images of one size that go through the network together, at most.
            num_threads: CPU threads of the network, for the whole process; None leaves
                PyTorch's choice.
        """
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        # TensorFloat-32, cuDNN's default, is not the fp32 that the fingerprint says.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        self._device = torch.device(device)
        self._network = nn.Sequential(Preprocess(record), network).eval().to(self._device)
        self._num_classes = record.num_classes
        self._dtype = _DTYPES[precision]
        self._batch_size = batch_size

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction | None]:
        """Label images of any sizes.

        Args:
            images: RGB, uint8 of shape (H, W, 3) each.

        Returns:
            In the order of the images; None for one that alone needs more memory than there is.
        """
        predictions: list[Prediction | None] = [None] * len(images)
        for batch in _same_size_batches(images, self._batch_size):
            found = self._predict_or_halve([images[index] for index in batch])
            for index, prediction in zip(batch, found, strict=True):
                predictions[index] = prediction
        return predictions

    def _predict_or_halve(self, images: list[NDArray[np.uint8]]) -> Sequence[Prediction | None]:
        try:
            return self._predict_batch(np.stack(images))
        except (torch.OutOfMemoryError, MemoryError):
            pass
        except RuntimeError as error:
            # What PyTorch's CPU allocator raises has no class of its own.
            if "not enough memory" not in str(error) and "can't allocate memory" not in str(error):
                raise
        # Outside of the handlers, so that the failed attempt's tensors are free again.
        if len(images) == 1:
            return [None]
        half = len(images) // 2
        return [*self._predict_or_halve(images[:half]), *self._predict_or_halve(images[half:])]

    @torch.inference_mode()
    def _predict_batch(self, images_NHWC: NDArray[np.uint8]) -> list[Prediction]:
        on_device = torch.from_numpy(images_NHWC).to(self._device)
        with torch.autocast(
            self._device.type, self._dtype, enabled=self._dtype is not torch.float32
        ):
            scores_NCHW = self._network(on_device)
        best_NHW, mask_NHW = scores_NCHW.float().max(dim=1)
        confidence_NHW = torch.exp(best_NHW - torch.logsumexp(scores_NCHW.float(), dim=1))
        steps_NHW = (confidence_NHW.double() * _CONFIDENCE_STEPS).round()
        return [self._finish(mask, steps) for mask, steps in zip(mask_NHW, steps_NHW, strict=True)]

    def _finish(self, mask_HW: torch.Tensor, steps_HW: torch.Tensor) -> Prediction:
        flat = mask_HW.flatten()
        pixels = torch.bincount(flat, minlength=self._num_classes).cpu().numpy()
        sums = torch.bincount(flat, steps_HW.flatten(), self._num_classes).cpu().numpy()
        with np.errstate(invalid="ignore"):
            class_confidence = sums / pixels / _CONFIDENCE_STEPS
        return Prediction(
            mask=mask_HW.to(torch.uint8).cpu().numpy(),
            class_pixels=pixels,
            class_confidence=class_confidence,
            mean_confidence=float(sums.sum() / pixels.sum() / _CONFIDENCE_STEPS),
        )


def limit_memory(num_bytes: int) -> None:
    """Let this process ask for so much more memory and no more.

    What exceeds it is an error that `Predictor` catches, so that one image gets no mask; without
    the limit the kernel kills the process, and whoever restarts it meets the image again.

    Args:
        num_bytes: Of private memory, on top of what the process has by now (Linux, RLIMIT_DATA).
    """
    with open("/proc/self/statm", encoding="ascii") as file:
        data_pages = int(file.read().split()[5])
    limit = data_pages * resource.getpagesize() + num_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _same_size_batches(images: Sequence[NDArray[np.uint8]], batch_size: int) -> Iterator[list[int]]:
    by_size: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        by_size.setdefault(image.shape, []).append(index)
    for indices in by_size.values():
        for start in range(0, len(indices), batch_size):
            yield indices[start : start + batch_size]
