"""The loss, and what it is divided by.

The sum over pixels and its divisor are separate, because the divisor is that of a whole step:
all its images, on all workers, in all micro-batches. So a step is the same however it is cut.
"""

import torch
import torch.nn.functional as F

from fcn.weights.record import IGNORE_INDEX


def at_size_of(truths_NHW: torch.Tensor, scores_NCHW: torch.Tensor) -> torch.Tensor:
    """Bring scores to the size of the ground truth, as labelling brings them to an image's.

    Args:
        truths_NHW: At the size of the images.
        scores_NCHW: At the size at which the network saw them (a checkpoint's `image_scale`).
    """
    size = truths_NHW.shape[1:]
    if scores_NCHW.shape[2:] == size:
        return scores_NCHW
    return F.interpolate(scores_NCHW.float(), size, mode="bilinear", align_corners=False)


def cross_entropy_sum(
    scores_NCHW: torch.Tensor,
    truths_NHW: torch.Tensor,
    weights: torch.Tensor | None,
    smoothing: float = 0.0,
) -> torch.Tensor:
    """Sum the weighted cross-entropy over the pixels that have a class.

    Weights w make rare classes count, and would make the network say them too often: what it
    learns are probabilities proportional to w p. So log w is added to the scores in the loss, and
    the scores themselves come to log p (Menon et al., "Long-tail learning via logit adjustment",
    2021, section 4, read backwards).

    Args:
        scores_NCHW: Of every class; computed with in float32, whatever they are.
        truths_NHW: Class indices, int64, `IGNORE_INDEX` where there is none.
        weights: The weights of the classes, float32; None weighs all alike.
        smoothing: Share of a pixel's certainty that goes to all classes alike.
    """
    scores = scores_NCHW.float() if weights is None else _shifted(scores_NCHW, weights)
    return F.cross_entropy(
        scores,
        truths_NHW,
        weights,
        ignore_index=IGNORE_INDEX,
        reduction="sum",
        label_smoothing=smoothing,
    )


def _shifted(scores_NCHW: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    # One pass over the scores adds, and converts to the weights' float32.
    return scores_NCHW + weights.log()[:, None, None]


def divisor(kind: str, truths_NHW: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Return what the loss of this ground truth adds to the divisor of the step.

    Args:
        kind: `one`: nothing is divided, as in the paper's published solvers (normalize: false).
            `pixels`: pixels with a class, each as much as its class weighs (PyTorch's mean).
        truths_NHW: As above.
        weights: As above.

    Returns:
        A float64 scalar.
    """
    if kind == "one":
        return torch.zeros((), dtype=torch.float64, device=truths_NHW.device)
    if weights is None:
        return (truths_NHW != IGNORE_INDEX).sum(dtype=torch.float64)
    # Nothing is picked out by a condition, whose size the CPU would wait for.
    of_index = F.pad(weights.double(), (0, IGNORE_INDEX + 1 - len(weights)))
    return of_index[truths_NHW].sum()
