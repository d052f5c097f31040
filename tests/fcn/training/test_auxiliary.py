"""The auxiliary head and the other numbers of a recipe that change a step."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.segmentation import fcn_resnet50

from fcn.architectures import ARCHITECTURES, AUXILIARY
from fcn.models import build
from fcn.training.auxiliary import WithAuxiliary
from fcn.training.batch import Batch
from fcn.training.losses import cross_entropy_sum
from fcn.training.recipes import RECIPES, Recipe, find_recipe
from fcn.training.trainer import Trainer
from fcn.weights.classes import numbered_classes
from fcn.weights.files import random_network, save
from fcn.weights.record import Checkpoint
from tests.disk_runs import random_pixels

_RECORD = Checkpoint("fcn_pyramid", numbered_classes(3), width=4)
_RECIPE = dataclasses.replace(
    RECIPES["paper"], batch_size=2, learning_rate=0.02, weight_decay=0.0, auxiliary_loss=0.5
)


def _batch(seed: int = 0) -> Batch:
    images = [random_pixels(seed + index, 64, 96, 3) for index in range(2)]
    return Batch(images, [image[..., 0] % 3 for image in images], range(seed, seed + 2))


def _trainer(recipe: Recipe, seed: int = 0) -> Trainer:
    torch.manual_seed(seed)
    return Trainer(random_network(_RECORD, 0), _RECORD, recipe)


@torch.no_grad()
def test_it_is_torchvisions() -> None:
    """With torchvision's tensors both heads give the scores that torchvision's network gives."""
    torch.manual_seed(0)
    theirs = fcn_resnet50(weights=None, weights_backbone=None, num_classes=3, aux_loss=True).eval()
    ours = WithAuxiliary(build("fcn_resnet50", 3), AUXILIARY["fcn_resnet50"], 3).eval()
    tensors = theirs.state_dict()
    head = {name: tensors.pop(f"aux_classifier.{name}") for name in ours.head.state_dict()}
    ours.network.load_state_dict(tensors)
    ours.head.load_state_dict(head)
    images = torch.randn(1, 3, 48, 64)

    scores, auxiliary = ours(images)

    expected = theirs(images)
    upsampled = F.interpolate(auxiliary, (48, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(scores, expected["out"])
    torch.testing.assert_close(upsampled, expected["aux"])


def test_recipes_have_it_where_torchvision_has() -> None:
    """`modern` adds half of its loss for the FCN-ResNets, and no one else's."""
    found = {name: find_recipe("modern", name).auxiliary_loss for name in ARCHITECTURES}

    assert {name for name, weight in found.items() if weight} == {"fcn_resnet50", "fcn_resnet101"}
    assert found["fcn_resnet50"] == 0.5
    assert AUXILIARY.keys() >= {name for name, weight in found.items() if weight}


@pytest.mark.parametrize("name", AUXILIARY)
def test_every_place_that_is_named_is_there(name: str) -> None:
    """The head finds features of the middle of the encoder, smaller than the image."""
    with torch.device("meta"):
        both = WithAuxiliary(build(name, 3).train(), AUXILIARY[name], 3)
        scores, auxiliary = both(torch.zeros(2, 3, 128, 160))

    assert scores.shape == (2, 3, 128, 160)
    assert auxiliary.shape in {(2, 3, 8, 10), (2, 3, 16, 20)}


def test_a_state_goes_on_with_its_head() -> None:
    """Head and optimizer are restored: the next losses are the same; the checkpoint has no head."""
    first = _trainer(_RECIPE)
    for step in range(2):
        first.step(_batch(step), step, 0.1)
    state = {name: tensor.clone() for name, tensor in first.state().items()}
    other = _trainer(_RECIPE, seed=7)
    other.restore(state)

    losses = [
        [one.step(_batch(step), step, 0.1).item() for step in (2, 3)] for one in (first, other)
    ]

    assert losses[0] == losses[1]
    bare = random_network(_RECORD, 0).state_dict().keys()
    assert save(_RECORD, first.network)[0].network == "fcn_pyramid"
    assert first.network.state_dict().keys() == bare


def test_its_loss_counts_with_its_weight() -> None:
    """The loss of a step is the network's plus the head's by its weight."""
    losses = {
        weight: _trainer(dataclasses.replace(_RECIPE, auxiliary_loss=weight))
        .step(_batch(), 0, 0.0)
        .item()
        for weight in (0.0, 0.25, 0.5)
    }

    # Other parameters are drawn with a head, and the same ones for both weights.
    assert losses[0.5] > losses[0.25] > losses[0.0]
    assert losses[0.5] - losses[0.25] == pytest.approx(losses[0.25] - losses[0.0], rel=1e-4)


def test_the_head_learns_ten_times_as_fast() -> None:
    """A step moves it by ten times the rate, and the network by the rate, times the gradients."""
    recipe = dataclasses.replace(_RECIPE, momentum=0.0, bias_rate=1.0, micro_batch_size=None)
    trainer = _trainer(recipe)
    trained = dict(trainer._trained.named_parameters())
    before = {name: one.detach().clone() for name, one in trained.items()}
    gradients: dict[str, torch.Tensor] = {}
    for name, one in trained.items():
        one.register_hook(lambda gradient, name=name: gradients.update({name: gradient.clone()}))

    trainer.step(_batch(), 0, 0.0)

    for name, one in trained.items():
        rate = 0.2 if name.startswith("head.") else 0.02
        moved = before[name] - one.detach()
        torch.testing.assert_close(moved, rate * gradients[name], rtol=1e-3, atol=1e-6)


def test_gradients_are_scaled_down_to_the_norm() -> None:
    """Without momentum a step moves all weights together by rate times the largest norm."""
    recipe = dataclasses.replace(
        _RECIPE, momentum=0.0, bias_rate=1.0, max_gradient_norm=0.01, auxiliary_loss=0.0
    )
    trainer = _trainer(recipe)
    trained = dict(trainer.network.named_parameters())
    before = {name: one.detach().clone() for name, one in trained.items()}

    trainer.step(_batch(), 0, 0.0)

    moved = torch.stack([(one - before[name]).norm() for name, one in trained.items()]).norm()
    assert moved.item() == pytest.approx(0.02 * 0.01, rel=1e-3)


def test_smoothed_labels_give_a_share_to_all_classes() -> None:
    """The loss is that of a truth of 1 - s for the class and s / C for every class."""
    scores = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    truths = torch.randint(0, 3, (1, 4, 5), generator=torch.Generator().manual_seed(1))
    wanted = 0.7 * F.one_hot(truths, 3) + 0.3 / 3

    expected = -(wanted.permute(0, 3, 1, 2) * scores.log_softmax(1)).sum()

    assert cross_entropy_sum(scores, truths, None, 0.3).item() == pytest.approx(expected.item())
