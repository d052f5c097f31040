"""From scores to class indices, exact counts and confidences: of a region, of a whole picture."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fcn.geometry import Size
from fcn.inference.scorer import Scorer
from fcn.inference.tiling import Region, tiles, whole

# Confidences are summed as whole multiples of 2^-20: such sums are exact in float64 up to 2^33
# pixels, so that neither their order nor the number of threads nor tiles change them.
_CONFIDENCE_STEPS = 1 << 20
_MAX_BYTE = 255


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image.

    Attributes:
        mask: Class indices, uint8 of shape (H, W).
        class_pixels: Pixels per class, int64 of shape (num_classes,), summing to H * W.
        class_confidence: Mean softmax value of the winning class over the pixels of each class,
            float64 of shape (num_classes,) in [0, 1]; NaN for classes without pixels.
        mean_confidence: The same over all pixels.
        confidence: The same of every pixel as round(255 * value), uint8 of shape (H, W), if asked
            for.
        scores: Score maps, float32 of shape (num_classes, H, W), if asked for; of several views
            the logarithm of the mean softmax.
    """

    mask: NDArray[np.uint8]
    class_pixels: NDArray[np.int64]
    class_confidence: NDArray[np.float64]
    mean_confidence: float
    confidence: NDArray[np.uint8] | None = None
    scores: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class _Labels:
    """What is found of a region: a `Prediction` before the sums are divided."""

    mask: NDArray[np.uint8]
    pixels: NDArray[np.int64]
    steps: NDArray[np.float64]
    confidence: NDArray[np.uint8] | None
    scores: NDArray[np.float32] | None

    def prediction(self) -> Prediction:
        with np.errstate(invalid="ignore"):
            class_confidence = self.steps / self.pixels / _CONFIDENCE_STEPS
        return Prediction(
            mask=self.mask,
            class_pixels=self.pixels,
            class_confidence=class_confidence,
            mean_confidence=float(self.steps.sum() / self.pixels.sum() / _CONFIDENCE_STEPS),
            confidence=self.confidence,
            scores=self.scores,
        )


class Labeller:
    """Labels pictures, whole or tile by tile."""

    def __init__(
        self,
        scorer: Scorer,
        num_classes: int,
        dtype: torch.dtype,
        *,
        with_scores: bool,
        with_confidence: bool,
    ) -> None:
        """Say what is wanted.

        Args:
            scorer: Gives the scores.
            num_classes: Of the network.
            dtype: Of the network's arithmetic; other than float32 it is autocast.
            with_scores: Whether predictions have score maps.
            with_confidence: Whether predictions have the confidence of every pixel.
        """
        self._scorer = scorer
        self._num_classes = num_classes
        self._dtype = dtype
        self.with_scores = with_scores
        self._with_confidence = with_confidence

    def label_whole(self, images_NHWC: torch.Tensor) -> list[Prediction]:
        """Label pictures of one size at once.

        Args:
            images_NHWC: RGB, uint8, on the device.
        """
        picture = (images_NHWC.shape[1], images_NHWC.shape[2])
        return [labels.prediction() for labels in self._label(images_NHWC, whole(picture))]

    def label_tiled(self, image_HWC: torch.Tensor, side: int) -> Prediction:
        """Label one picture tile by tile; memory is that of a tile with its margins.

        Args:
            image_HWC: RGB, uint8, on the device.
            side: Of the tiles, in pixels.
        """
        picture = (image_HWC.shape[0], image_HWC.shape[1])
        found = (
            (region, self._label(image_HWC[None], region)[0]) for region in tiles(picture, side)
        )
        return self._join(picture, found).prediction()

    @torch.inference_mode()
    def _label(self, images_NHWC: torch.Tensor, region: Region) -> list[_Labels]:
        device = images_NHWC.device.type
        with torch.autocast(device, self._dtype, enabled=self._dtype is not torch.float32):
            scores_NCHW = self._scorer.scores(images_NHWC, region)
        best_NHW, mask_NHW = scores_NCHW.max(dim=1)
        confidence_NHW = torch.exp(best_NHW - torch.logsumexp(scores_NCHW, dim=1))
        pixels_NC, steps_NC = self._count(mask_NHW, confidence_NHW)
        if not np.isfinite(steps_NC).all():
            raise FloatingPointError(
                f"scores in {self._dtype} are not finite: the network's numbers are too large for "
                "it; use precision bf16 or fp32"
            )
        masks = mask_NHW.to(torch.uint8).cpu().numpy()
        bytes_NHW = (confidence_NHW * _MAX_BYTE).round().to(torch.uint8)
        return [
            _Labels(
                mask=masks[index],
                pixels=pixels_NC[index],
                steps=steps_NC[index],
                confidence=bytes_NHW[index].cpu().numpy() if self._with_confidence else None,
                scores=scores_NCHW[index].cpu().numpy() if self.with_scores else None,
            )
            for index in range(len(masks))
        ]

    def _count(
        self, mask_NHW: torch.Tensor, confidence_NHW: torch.Tensor
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Count pixels and sum confidences per image and class, in one pass over all images."""
        number = len(mask_NHW)
        first_bins = torch.arange(number, device=mask_NHW.device) * self._num_classes
        bins = (mask_NHW + first_bins[:, None, None]).flatten()
        steps = (confidence_NHW.double() * _CONFIDENCE_STEPS).round().flatten()
        num_bins = number * self._num_classes
        counts = (torch.bincount(bins, weights, num_bins) for weights in (None, steps))
        pixels, sums = (count.cpu().numpy().reshape(number, -1) for count in counts)
        return pixels, sums

    def _join(self, picture: Size, found: Iterable[tuple[Region, _Labels]]) -> _Labels:
        num_classes = self._num_classes
        joined = _Labels(
            mask=np.empty(picture, np.uint8),
            pixels=np.zeros(num_classes, np.int64),
            steps=np.zeros(num_classes, np.float64),
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
