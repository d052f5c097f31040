"""Classes, counts and confidences of score maps in one pass over them, for GPUs (Triton).

`fcn.inference.labeller.label_plainly` is the same in PyTorch's operations and says what is meant;
the two give equal masks and counts, and confidences that differ by rounding.
"""

import torch
import triton
import triton.language as tl

# Fewer pixels per program than elsewhere: scores plane by plane are read 1.6 times as fast so.
_BLOCK = 256


@triton.jit  # type: ignore[untyped-decorator]  # Triton's
def _best(first, inside, num_classes, class_step, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # Triton's types are no Python types
    """Find each pixel's class and its share of the softmax, which is 1 over the sum of the rest."""
    best = tl.full([BLOCK], float("-inf"), tl.float32)
    winner = tl.zeros([BLOCK], tl.int32)
    place = first
    for index in range(num_classes):
        score = tl.load(place, mask=inside, other=0.0).to(tl.float32)
        winner = tl.where(score > best, index, winner)
        best = tl.maximum(best, score)
        place += class_step
    total = tl.zeros([BLOCK], tl.float32)
    place = first
    for _ in range(num_classes):
        score = tl.load(place, mask=inside, other=0.0).to(tl.float32)
        total += tl.exp(score - best)
        place += class_step
    return winner, 1.0 / total


@triton.jit
def _add_up(of_image, bins, steps, inside, num_bins):  # type: ignore[no-untyped-def]  # as above
    """Add the pixels and the steps of confidence of each bin to those of the picture."""
    for index in range(num_bins):
        hit = inside & (bins == index)
        number = tl.sum(hit.to(tl.int32))
        tl.atomic_add(of_image + index, number.to(tl.int64), mask=number > 0)
        added = tl.sum(tl.where(hit, steps, 0))
        tl.atomic_add(of_image + num_bins + index, added.to(tl.int64), mask=number > 0)


@triton.jit  # type: ignore[untyped-decorator]  # Triton's
def _label(  # type: ignore[no-untyped-def]  # as above
    scores,
    mask,
    confidences,
    totals,
    num_pixels,
    width,
    num_classes,
    image_step,
    class_step,
    row_step,
    column_step,
    below,
    STEPS: tl.constexpr,
    WITH_CONFIDENCE: tl.constexpr,
    IGNORING: tl.constexpr,
    BLOCK: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < num_pixels
    row = (pixel // width).to(tl.int64)
    first = scores + image * image_step + row * row_step + (pixel % width) * column_step
    winner, confidence = _best(first, inside, num_classes, class_step, BLOCK)

    out = image * num_pixels + pixel
    num_bins = num_classes
    written = winner
    if IGNORING:
        unsure = confidence < below
        written = tl.where(unsure, 255, winner)
        winner = tl.where(unsure, num_classes, winner)
        num_bins = num_classes + 1
    tl.store(mask + out, written.to(tl.uint8), mask=inside)
    # Adding and taking off 1.5 * 2^23 rounds to the nearest whole number, to even between two.
    if WITH_CONFIDENCE:
        byte = (confidence * 255.0 + 12582912.0) - 12582912.0
        tl.store(confidences + out, byte.to(tl.uint8), mask=inside)
    steps = ((confidence * STEPS + 12582912.0) - 12582912.0).to(tl.int32)
    _add_up(totals + image * 2 * num_bins, winner, steps, inside, num_bins)
    wrong = tl.sum((inside & ~(confidence > 0.0)).to(tl.int32))
    last = totals + tl.num_programs(1) * 2 * num_bins
    tl.atomic_add(last, wrong.to(tl.int64), mask=wrong > 0)


def label_in_one_pass(
    scores_NCHW: torch.Tensor, num_steps: int, *, with_confidence: bool, ignore_below: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Label pictures by their score maps; see `fcn.inference.labeller.label_plainly`.

    Args:
        scores_NCHW: Floating point, in any memory format.
        num_steps: Confidences are summed as whole multiples of 1 / num_steps; 2^20 at most.
        with_confidence: Whether the confidence of every pixel is wanted.
        ignore_below: Pixels of a lower confidence become 255; 0 ignores none.
    """
    number, num_classes, height, width = scores_NCHW.shape
    empty = {"dtype": torch.uint8, "device": scores_NCHW.device}
    mask = torch.empty((number, height, width), **empty)  # type: ignore[call-overload]  # mypy
    confidence = torch.empty_like(mask) if with_confidence else None
    num_bins = num_classes + bool(ignore_below)
    totals = mask.new_zeros(2 * number * num_bins + 1, dtype=torch.int64)
    blocks = (triton.cdiv(height * width, _BLOCK), number)
    image_step, class_step, row_step, column_step = scores_NCHW.stride()
    _label[blocks](
        *(scores_NCHW, mask, mask if confidence is None else confidence, totals),
        *(height * width, width, num_classes),
        *(image_step, class_step, row_step, column_step, ignore_below),
        STEPS=float(num_steps),
        WITH_CONFIDENCE=with_confidence,
        IGNORING=bool(ignore_below),
        BLOCK=_BLOCK,
    )
    return mask, totals, confidence
