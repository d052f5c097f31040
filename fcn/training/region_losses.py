"""Losses of regions: how far a mask's classes are from overlapping the ground truth's.

Cross-entropy counts pixels, and mean IU counts classes. These losses look at an image's classes as
regions, of those classes that its ground truth holds. Each image has its own, so that the sum over
a step does not depend on how the step is cut.
"""

from collections.abc import Callable

import torch

from fcn.weights.record import IGNORE_INDEX


def region_loss_sum(kind: str, scores_NCHW: torch.Tensor, truths_NHW: torch.Tensor) -> torch.Tensor:
    """Sum a loss of regions over images: 0 for a perfect mask, up to 1 for each.

    Args:
        kind: A name of `REGION_LOSSES`.
        scores_NCHW: Of every class; computed with in float32, whatever they are.
        truths_NHW: Class indices, int64, `IGNORE_INDEX` where there is none.
    """
    probabilities = scores_NCHW.float().softmax(1)
    pairs = zip(probabilities, truths_NHW, strict=True)
    return torch.stack([_of_image(REGION_LOSSES[kind], *pair) for pair in pairs]).sum()


_OfClasses = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def _of_image(
    loss: _OfClasses, probabilities_CHW: torch.Tensor, truth_HW: torch.Tensor
) -> torch.Tensor:
    """Return the mean of a loss over the classes of an image; 0 for one without any."""
    truth_P = truth_HW.flatten()
    labelled_P = truth_P != IGNORE_INDEX
    classes_C1 = torch.arange(len(probabilities_CHW), device=truth_P.device)[:, None]
    truth_CP = (truth_P == classes_C1).float()
    is_there_C = truth_CP.any(1)
    loss_C = loss(probabilities_CHW.flatten(1), truth_CP, labelled_P.float())
    return (loss_C * is_there_C).sum() / is_there_C.sum().clamp(min=1)


def _dice(p_CP: torch.Tensor, truth_CP: torch.Tensor, labelled_P: torch.Tensor) -> torch.Tensor:
    """Milletari et al., "V-Net" (2016), section 3, with sums in place of sums of squares."""
    overlap_C = (p_CP * truth_CP).sum(1)
    both_C = (p_CP * labelled_P).sum(1) + truth_CP.sum(1)
    return 1 - 2 * overlap_C / both_C.clamp(min=1)


def _lovasz(p_CP: torch.Tensor, truth_CP: torch.Tensor, labelled_P: torch.Tensor) -> torch.Tensor:
    """Berman et al., "The Lovász-Softmax loss" (CVPR 2018), equations 8, 9 and algorithm 1.

    The gradient of the Jaccard loss's convex extension, of pixels in order of their errors. A
    pixel without a class has no error, so that it comes last and counts for nothing.
    """
    errors_CP, order_CP = ((truth_CP - p_CP).abs() * labelled_P).sort(1, descending=True)
    sorted_CP = truth_CP.gather(1, order_CP)
    pixels_C1 = sorted_CP.sum(1, keepdim=True)
    left_CP = pixels_C1 - sorted_CP.cumsum(1)
    union_CP = pixels_C1 + (1 - sorted_CP).cumsum(1)
    jaccard_CP = 1 - left_CP / union_CP
    steps_CP = jaccard_CP.diff(dim=1, prepend=torch.zeros_like(pixels_C1))
    return (errors_CP * steps_CP).sum(1)


REGION_LOSSES: dict[str, _OfClasses] = {"dice": _dice, "lovasz": _lovasz}
