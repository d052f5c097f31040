"""The loss and its divisor, against plain sums."""

import pytest
import torch
import torch.nn.functional as F

from fcn.training.losses import cross_entropy_sum, divisor

_GENERATOR = torch.Generator().manual_seed(0)
_SCORES = torch.randn(2, 3, 4, 5, generator=_GENERATOR)
_TRUTHS = torch.randint(0, 3, (2, 4, 5), generator=_GENERATOR)
_TRUTHS[0, :2] = 255
_WEIGHTS = torch.tensor([0.5, 1.0, 4.0])


@pytest.mark.parametrize("weights", [None, _WEIGHTS], ids=["alike", "weighed"])
def test_sum_over_divisor_is_the_mean_that_pytorch_gives(weights: torch.Tensor | None):
    """Over pixels with a class, each as much as its class weighs."""
    shifted = _SCORES if weights is None else _SCORES + weights.log()[:, None, None]
    expected = F.cross_entropy(shifted, _TRUTHS, weights, ignore_index=255)

    total = divisor("pixels", _TRUTHS, weights)

    found = cross_entropy_sum(_SCORES, _TRUTHS, weights) / total
    torch.testing.assert_close(found, expected.double())


def test_the_divisor_is_what_its_name_says():
    """`pixels` counts those with a class, `one` divides by nothing."""
    assert divisor("pixels", _TRUTHS, None) == 2 * 4 * 5 - 2 * 5
    assert divisor("one", _TRUTHS, _WEIGHTS) == 0


def test_sums_and_divisors_add_up_over_images():
    """A step cut into images has the loss of the whole."""
    parts = [slice(0, 1), slice(1, 2)]

    assert sum(divisor("pixels", _TRUTHS[part], _WEIGHTS) for part in parts) == pytest.approx(
        divisor("pixels", _TRUTHS, _WEIGHTS).item()
    )
    sums = [cross_entropy_sum(_SCORES[part], _TRUTHS[part], _WEIGHTS) for part in parts]
    torch.testing.assert_close(sums[0] + sums[1], cross_entropy_sum(_SCORES, _TRUTHS, _WEIGHTS))


def test_weights_do_not_move_what_is_learned():
    """The scores with the least weighted loss are the logarithms of the classes' true shares."""
    truths = torch.tensor([0] * 6 + [1] * 3 + [2])[None, None]
    scores = torch.zeros(1, 3, 1, 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores], max_iter=100, tolerance_grad=1e-9)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = cross_entropy_sum(scores.expand(1, 3, 1, 10), truths, _WEIGHTS)
        loss.backward()
        return loss

    optimizer.step(closure)

    shares = scores.detach().softmax(1).flatten()
    torch.testing.assert_close(shares, torch.tensor([0.6, 0.3, 0.1]), atol=1e-3, rtol=0)
