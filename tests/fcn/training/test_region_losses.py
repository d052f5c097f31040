"""Losses of regions, against their definitions."""

from itertools import pairwise

import pytest
import torch

from fcn.training.region_losses import REGION_LOSSES, region_loss_sum

_SIZE = (4, 5)
_CLASSES = 3
_GENERATOR = torch.Generator().manual_seed(0)
_SCORES = torch.randn(2, _CLASSES, *_SIZE, generator=_GENERATOR)
_TRUTHS = torch.randint(0, 2, (2, *_SIZE), generator=_GENERATOR)
_TRUTHS[0, :2] = 255
_KINDS = pytest.mark.parametrize("kind", sorted(REGION_LOSSES))


def _sure_of(masks: torch.Tensor) -> torch.Tensor:
    """Make scores that leave no doubt of a mask's classes."""
    return 100.0 * torch.nn.functional.one_hot(masks, _CLASSES).permute(0, 3, 1, 2)


def _mean_over_classes(mask: torch.Tensor, truth: torch.Tensor, kind: str) -> float:
    """Return the mean of 1 - IU, or of 1 - Dice, over the classes of the ground truth."""
    losses = []
    mask, truth = mask[truth != 255], truth[truth != 255]
    for one in truth.unique():
        a, b = mask == one, truth == one
        both, either = int((a & b).sum()), int((a | b).sum())
        losses.append(1 - (both / either if kind == "lovasz" else 2 * both / (both + either)))
    return sum(losses) / len(losses)


@_KINDS
def test_of_masks_without_doubt_it_is_the_measure(kind: str):
    """Where probabilities are 0 and 1, Lovász is 1 - mean IU per image, and Dice 1 - Dice."""
    masks = torch.randint(0, _CLASSES, (2, *_SIZE), generator=_GENERATOR)

    found = region_loss_sum(kind, _sure_of(masks), _TRUTHS)

    expected = sum(_mean_over_classes(masks[i], _TRUTHS[i], kind) for i in range(2))
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_lovasz_is_the_convex_extension():
    """Between masks it is the mean over all thresholds of the loss of who errs beyond them."""
    scores, truth = _SCORES[1:], _TRUTHS[1]
    probabilities = scores.softmax(1)[0]
    losses = []
    for one in truth.unique():
        is_one = truth == one
        errors = (is_one.float() - probabilities[one]).abs().flatten()
        levels = torch.cat([torch.zeros(1), errors.sort().values])
        total = 0.0
        for low, high in pairwise(levels):
            wrong = (errors > low).view(_SIZE)
            union = int((is_one | wrong).sum())
            total += (high - low).item() * int(wrong.sum()) / union
        losses.append(total)

    found = region_loss_sum("lovasz", scores, _TRUTHS[1:])

    assert found.item() == pytest.approx(sum(losses) / len(losses), abs=1e-5)


@_KINDS
def test_pixels_without_a_class_count_for_nothing(kind: str):
    """Whatever is scored where there is no ground truth, the loss and its gradient are the same."""
    changed = _SCORES.clone()
    changed[0, :, :2] += torch.randn(_CLASSES, 2, 5, generator=_GENERATOR)
    results = []
    for one in (_SCORES, changed):
        scores = one.clone().requires_grad_()
        loss = region_loss_sum(kind, scores, _TRUTHS)
        loss.backward()
        results.append((loss.detach(), scores.grad))

    torch.testing.assert_close(results[0], results[1])
    assert not results[0][1][0, :, :2].any()


@_KINDS
def test_an_image_without_a_class_adds_nothing(kind: str):
    """Its loss is 0, and so is its gradient, which is a number."""
    scores = _SCORES.clone().requires_grad_()

    loss = region_loss_sum(kind, scores, torch.full_like(_TRUTHS, 255))
    loss.backward()

    assert loss.item() == 0
    assert not scores.grad.any()


@_KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_adds_up_over_images_in_float32(kind: str, dtype: torch.dtype):
    """A step cut into images has the loss of the whole, whatever its scores are."""
    scores = _SCORES.to(dtype)
    parts = [region_loss_sum(kind, scores[i : i + 1], _TRUTHS[i : i + 1]) for i in range(2)]

    whole = region_loss_sum(kind, scores, _TRUTHS)

    assert whole.dtype == torch.float32
    torch.testing.assert_close(parts[0] + parts[1], whole)


@_KINDS
def test_a_network_learns_by_it_alone(kind: str):
    """Going down its gradient ends at the ground truth's mask."""
    scores = torch.zeros(2, _CLASSES, *_SIZE, requires_grad=True)
    optimizer = torch.optim.Adam([scores], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        region_loss_sum(kind, scores, _TRUTHS).backward()
        optimizer.step()

    assert (scores.argmax(1) == _TRUTHS)[_TRUTHS != 255].all()
