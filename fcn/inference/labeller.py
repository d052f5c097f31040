"""From scores to class indices, exact counts and confidences: of a region, of a whole picture."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fcn.geometry import Size
from fcn.inference.scorer import Scorer
from fcn.inference.tiling import Region, tiles, whole
from fcn.kernels import find_kernels
from fcn.weights.record import IGNORE_INDEX

# Confidences are summed as whole multiples of 2^-20: such sums are exact, in float64 too up to 2^33
# pixels, so that neither their order nor the number of threads nor tiles change them.
_CONFIDENCE_STEPS = 1 << 20
_MAX_BYTE = 255


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image.

    Attributes:
        mask: Class indices, uint8 of shape (H, W).
        class_pixels: Pixels per class, int64 of shape (num_classes,), summing to H * W with those
            that are ignored.
        class_confidence: Mean softmax value of the winning class over the pixels of each class,
            float64 of shape (num_classes,) in [0, 1]; NaN for classes without pixels.
        mean_confidence: The same over all pixels, those included that are ignored.
        confidence: The same of every pixel as round(255 * value), uint8 of shape (H, W), if asked
            for.
        scores: Score maps, float32 of shape (num_classes, H, W), if asked for; of several views
            the logarithm of the mean softmax.
        ignored_pixels: Pixels of 255 in the mask, where the network was less sure than was asked.
        ignored_confidence: Mean softmax value of the winning class over these; NaN without any.
    """

    mask: NDArray[np.uint8]
    class_pixels: NDArray[np.int64]
    class_confidence: NDArray[np.float64]
    mean_confidence: float
    confidence: NDArray[np.uint8] | None = None
    scores: NDArray[np.float32] | None = None
    ignored_pixels: int = 0
    ignored_confidence: float = math.nan


@dataclass(frozen=True)
class _Labels:
    """What is found of a region: a `Prediction` before the sums are divided.

    `pixels` and `steps` have an entry per class, and one more where pixels are ignored.
    """

    num_classes: int
    mask: NDArray[np.uint8]
    pixels: NDArray[np.int64]
    steps: NDArray[np.int64]
    confidence: NDArray[np.uint8] | None
    scores: NDArray[np.float32] | None

    def prediction(self) -> Prediction:
        with np.errstate(invalid="ignore"):
            confidences = self.steps / self.pixels / _CONFIDENCE_STEPS
        number = self.num_classes
        return Prediction(
            mask=self.mask,
            class_pixels=self.pixels[:number],
            class_confidence=confidences[:number],
            mean_confidence=float(self.steps.sum() / self.pixels.sum() / _CONFIDENCE_STEPS),
            confidence=self.confidence,
            scores=self.scores,
            ignored_pixels=int(self.pixels[number:].sum()),
            ignored_confidence=float(confidences[number])
            if len(confidences) > number
            else math.nan,
        )


# Masks, totals and confidences of pictures; see `label_plainly`.
_Found = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


def label_plainly(
    scores_NCHW: torch.Tensor, num_steps: int, *, with_confidence: bool, ignore_below: float = 0.0
) -> _Found:
    """Label pictures by their score maps.

    Args:
        scores_NCHW: Floating point.
        num_steps: Confidences are summed as whole multiples of 1 / num_steps.
        with_confidence: Whether the confidence of every pixel is wanted.
        ignore_below: Pixels of a lower confidence become 255; 0 ignores none.

    Returns:
        Masks, uint8 of shape (N, H, W); totals, int64 of shape (2 * N * C + 1,): per image the
        pixels of each class and then the steps of its confidence, and at last how many pixels have
        scores that are not finite; and confidences as round(255 * value), uint8 of shape
        (N, H, W). Where pixels are ignored, they are counted as one class more.
    """
    number, num_classes = scores_NCHW.shape[:2]
    scores_NCHW = scores_NCHW.float()
    best_NHW, mask_NHW = scores_NCHW.max(dim=1)
    confidence_NHW = torch.exp(best_NHW - torch.logsumexp(scores_NCHW, dim=1))
    classes_NHW, num_bins = mask_NHW, num_classes
    if ignore_below:
        unsure = confidence_NHW < ignore_below
        classes_NHW = mask_NHW.masked_fill(unsure, num_classes)
        mask_NHW = mask_NHW.masked_fill(unsure, IGNORE_INDEX)
        num_bins += 1
    first_bins = torch.arange(number, device=mask_NHW.device) * num_bins
    bins = (classes_NHW + first_bins[:, None, None]).flatten()
    steps = (confidence_NHW.double() * num_steps).round().flatten()
    pixels_NC, steps_NC = (
        torch.bincount(bins, weights, number * num_bins).reshape(number, -1)
        for weights in (None, steps)
    )
    wrong = (~steps_NC.isfinite()).sum()[None]
    totals = torch.stack([pixels_NC, steps_NC.long()], dim=1).flatten()
    bytes_NHW = (confidence_NHW * _MAX_BYTE).round().to(torch.uint8) if with_confidence else None
    return mask_NHW.to(torch.uint8), torch.cat([totals, wrong]), bytes_NHW


def find_labelling(device: torch.device) -> Callable[..., _Found]:
    """Return the fastest way to label on a device: `label_plainly`, or its fused form on GPUs.

    Args:
        device: Where the scores are.
    """
    kernels = find_kernels(device)
    return label_plainly if kernels is None else kernels.label_in_one_pass


class Launched:
    """Labels that the device may still be working on."""

    def __init__(self, found: _Found, num_classes: int, scores_NCHW: torch.Tensor | None) -> None:
        """Let the labels come to the CPU without waiting for them.

        Args:
            found: What `label_plainly` gives.
            num_classes: Number of classes that the network tells apart.
            scores_NCHW: The score maps, if they are wanted.
        """
        self._num_classes = num_classes
        mask, totals, confidence = found
        self._mask, self._totals = _bring(mask), _bring(totals)
        self._confidence = None if confidence is None else _bring(confidence)
        self._scores = None if scores_NCHW is None else scores_NCHW.float().cpu()
        self._arrived = None
        if mask.is_cuda:
            # Blocking: who waits sleeps, and leaves its core to the decoders.
            self._arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]  # PyTorch's
            self._arrived.record()

    def read(self) -> list[_Labels]:
        """Wait for the labels and return them, picture by picture.

        Raises:
            FloatingPointError: Scores are not finite.
        """
        if self._arrived is not None:
            self._arrived.synchronize()
        *totals, wrong = self._totals.tolist()
        if wrong:
            raise FloatingPointError(
                "scores are not finite: the network's numbers are too large for the precision; "
                "use precision bf16 or fp32"
            )
        masks, confidences = self._here(self._mask), self._here(self._confidence)
        assert masks is not None, "there is always a mask"
        sums = np.array(totals, np.int64).reshape(len(masks), 2, -1)
        return [
            _Labels(
                num_classes=self._num_classes,
                mask=masks[index],
                pixels=sums[index, 0],
                steps=sums[index, 1],
                confidence=None if confidences is None else confidences[index],
                scores=None if self._scores is None else self._scores[index].numpy(),
            )
            for index in range(len(masks))
        ]

    def _here(self, tensor: torch.Tensor | None) -> NDArray[np.uint8] | None:
        if tensor is None:
            return None
        # A copy where the page-locked memory is used again for the next batch.
        return tensor.numpy() if self._arrived is None else tensor.numpy().copy()


def _bring(tensor: torch.Tensor) -> torch.Tensor:
    """Copy to the CPU, from a GPU into page-locked memory and without waiting."""
    if not tensor.is_cuda:
        return tensor
    here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return here.copy_(tensor, non_blocking=True)


class Labeller:
    """Labels pictures, whole or tile by tile."""

    def __init__(
        self,
        scorer: Scorer,
        num_classes: int,
        *,
        with_scores: bool,
        with_confidence: bool,
        ignore_below: float = 0.0,
    ) -> None:
        """Say what is wanted.

        Args:
            scorer: Gives the scores.
            num_classes: Number of classes that the network tells apart.
            with_scores: Whether predictions have score maps.
            with_confidence: Whether predictions have the confidence of every pixel.
            ignore_below: Pixels of a lower confidence become 255; 0 ignores none.
        """
        self._scorer = scorer
        self._num_classes = num_classes
        self.with_scores = with_scores
        self._with_confidence = with_confidence
        self._ignore_below = ignore_below

    def launch_whole(self, images_NHWC: torch.Tensor) -> Launched:
        """Begin to label pictures of one size at once.

        Args:
            images_NHWC: RGB, uint8, on the device.
        """
        picture = (images_NHWC.shape[1], images_NHWC.shape[2])
        return self._launch(images_NHWC, whole(picture))

    def label_tiled(self, image_HWC: torch.Tensor, side: int) -> Prediction:
        """Label one picture tile by tile; memory is that of a tile with its margins.

        Args:
            image_HWC: RGB, uint8, on the device.
            side: The side of the tiles, in pixels.
        """
        picture = (image_HWC.shape[0], image_HWC.shape[1])
        found = (
            (region, self._launch(image_HWC[None], region).read()[0])
            for region in tiles(picture, side)
        )
        return self._join(picture, found).prediction()

    @torch.inference_mode()
    def _launch(self, images_NHWC: torch.Tensor, region: Region) -> Launched:
        scores_NCHW = self._scorer.scores(images_NHWC, region)
        label = find_labelling(scores_NCHW.device)
        found = label(
            scores_NCHW,
            _CONFIDENCE_STEPS,
            with_confidence=self._with_confidence,
            ignore_below=self._ignore_below,
        )
        return Launched(found, self._num_classes, scores_NCHW if self.with_scores else None)

    def _join(self, picture: Size, found: Iterable[tuple[Region, _Labels]]) -> _Labels:
        num_classes = self._num_classes
        num_bins = num_classes + bool(self._ignore_below)
        joined = _Labels(
            num_classes=num_classes,
            mask=np.empty(picture, np.uint8),
            pixels=np.zeros(num_bins, np.int64),
            steps=np.zeros(num_bins, np.int64),
            confidence=np.empty(picture, np.uint8) if self._with_confidence else None,
            scores=np.empty((num_classes, *picture), np.float32) if self.with_scores else None,
        )
        for region, labels in found:
            rows, columns = region.within(whole(picture))
            joined.mask[rows, columns] = labels.mask
            joined.pixels[:] += labels.pixels
            joined.steps[:] += labels.steps
            if joined.confidence is not None and labels.confidence is not None:
                joined.confidence[rows, columns] = labels.confidence
            if joined.scores is not None and labels.scores is not None:
                joined.scores[:, rows, columns] = labels.scores
        return joined
