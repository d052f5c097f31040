"""Training on one worker: steps that do not depend on how they are cut, states that go on."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fcn.inference.predictor import Predictor
from fcn.metrics import ConfusionMatrix
from fcn.models import Network
from fcn.training.batch import Batch
from fcn.training.dropout import ImageDropout
from fcn.training.recipes import RECIPES, Recipe
from fcn.training.trainer import Trainer
from fcn.weights import CheckpointError
from fcn.weights.classes import numbered_classes
from fcn.weights.files import build_recorded, random_network, start_from
from fcn.weights.record import Checkpoint
from tests.disk_runs import random_pixels

# No batch norm, so that images do not see each other.
_RECORD = Checkpoint("fcn32s_vgg16", numbered_classes(3), width=2, padding="tight")
_WITH_NORM = Checkpoint("fcn_all_skips", numbered_classes(3), width=4)
_RECIPE = dataclasses.replace(RECIPES["paper"], batch_size=4, learning_rate=0.02, epochs=1)


def _network(record: Checkpoint) -> Network:
    return random_network(record, 0)


def _batch(seed: int = 0, number: int = 4, size: tuple[int, int] = (33, 40)) -> Batch:
    images = [random_pixels(seed + index, *size, 3) for index in range(number)]
    truths = [image[..., 0] % 3 for image in images]
    truths[0] = truths[0].copy()
    truths[0][:5] = 255
    return Batch(images, truths, range(seed, seed + number))


def _losses(recipe: Recipe, record: Checkpoint = _RECORD, number: int = 3) -> list[float]:
    trainer = Trainer(_network(record), record, recipe, class_weights=(1.0, 2.0, 0.5))
    return [trainer.step(_batch(), step, 0.0).item() for step in range(number)]


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3])
@pytest.mark.parametrize("divisor", ["pixels", "one"])
def test_micro_batches_take_the_step_of_the_whole_batch(micro_batch_size: int, divisor: str):
    """Gradients summed up over micro-batches are those of the batch, whatever it is divided by."""
    rate = 0.02 if divisor == "pixels" else 1e-6
    recipe = dataclasses.replace(
        _RECIPE, divisor=divisor, micro_batch_size=None, learning_rate=rate
    )

    whole = _losses(recipe)

    cut = _losses(dataclasses.replace(recipe, micro_batch_size=micro_batch_size))
    assert cut == pytest.approx(whole, rel=1e-5)
    assert whole[2] < whole[0]


class _Short:
    """Lets a network have no memory for more than so many images."""

    def __init__(self, network: Network, most: int) -> None:
        self.most = most
        self.asked: list[int] = []
        network.register_forward_hook(self._check)

    def _check(self, _: object, given: tuple[torch.Tensor, ...], __: object) -> None:
        # After the pass, which has moved the running means of batch norms.
        self.asked.append(len(given[0]))
        if len(given[0]) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize("record", [_RECORD, _WITH_NORM], ids=["without norm", "with norm"])
def test_a_step_that_does_not_fit_is_passed_in_smaller_parts(record: Checkpoint):
    """Its numbers, and those of all that follow, are those of the smaller micro-batches."""
    recipe = dataclasses.replace(_RECIPE, micro_batch_size=None, ema_decay=0.9)
    network = _network(record)
    short = _Short(network, 1)
    trainer = Trainer(network, record, recipe)
    asked_for = Trainer(_network(record), record, dataclasses.replace(recipe, micro_batch_size=1))
    for step in range(3):
        losses = [one.step(_batch(), step, 0.0) for one in (trainer, asked_for)]
        torch.testing.assert_close(*losses, rtol=0, atol=0)
    assert short.asked == [4, 2, *[1] * 12]
    assert trainer.micro_batch_size == 1
    state, expected = trainer.state(), asked_for.state()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_memory_that_is_short_later_or_for_one_image_ends_the_training():
    """What fitted at first and does not now is a leak or another process; one image is least."""
    network = _network(_RECORD)
    short = _Short(network, 4)
    trainer = Trainer(network, _RECORD, dataclasses.replace(_RECIPE, micro_batch_size=None))
    for step in range(2):
        trainer.step(_batch(), step, 0.0)
    short.most = 1
    with pytest.raises(torch.OutOfMemoryError):
        trainer.step(_batch(), 2, 0.0)
    network = _network(_RECORD)
    _Short(network, 0)
    with pytest.raises(torch.OutOfMemoryError):
        Trainer(network, _RECORD, _RECIPE).step(_batch(), 0, 0.0)


@pytest.mark.parametrize("kind", ["dice", "lovasz"])
def test_a_loss_of_regions_comes_late_and_is_the_same_however_the_step_is_cut(kind: str):
    """Before its share of the training a step is as without it; after it, its mean is added."""
    late = dataclasses.replace(_RECIPE, region_loss=kind, region_loss_from=0.5)

    def first_step(recipe: Recipe, progress: float) -> float:
        trainer = Trainer(_network(_RECORD), _RECORD, recipe)
        return trainer.step(_batch(), 0, progress).item()

    without = first_step(_RECIPE, 0.5)
    assert first_step(late, 0.49) == without
    whole = first_step(late, 0.5)
    assert without < whole < without + 1
    cut = first_step(dataclasses.replace(late, micro_batch_size=1), 0.5)
    assert cut == pytest.approx(whole, rel=1e-5)


def test_images_of_many_sizes_make_a_step():
    """A batch of whole images that differ in size has the loss of all its pixels together."""
    small, large = _batch(1, 1, (20, 30)), _batch(2, 1, (41, 35))
    trainer = Trainer(_network(_RECORD), _RECORD, dataclasses.replace(_RECIPE, learning_rate=0.0))
    both = trainer.step(
        Batch([*small.images, *large.images], [*small.truths, *large.truths], (1, 2)), 0, 0.0
    )

    alone = [trainer.step(batch, 0, 0.0).item() for batch in (small, large)]

    weights = [int((batch.truths[0] != 255).sum()) for batch in (small, large)]
    expected = np.average(alone, weights=weights)
    assert both.item() == pytest.approx(expected, rel=1e-5)


def test_a_step_without_any_labelled_pixel_changes_nothing():
    """Nothing to learn is a loss of zero and not NaN."""
    batch = _batch()
    nothing = [np.full_like(truth, 255) for truth in batch.truths]
    empty = Batch(batch.images, nothing, batch.places)
    recipe = dataclasses.replace(_RECIPE, weight_decay=0.0)
    trainer = Trainer(_network(_RECORD), _RECORD, recipe)
    before = trainer.state()

    assert trainer.step(empty, 0, 0.0).item() == 0

    after = trainer.state()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("name", ["paper", "heavy", "modern"])
def test_a_restored_state_goes_on_as_if_nothing_had_happened(name: str):
    """Weights, running means and the optimizer's state: the next losses are the same."""
    recipe = dataclasses.replace(RECIPES[name], batch_size=4, warmup_steps=0)
    first = Trainer(random_network(_WITH_NORM, 0), _WITH_NORM, recipe)
    for step in range(3):
        first.step(_batch(step), step, 0.1)
    state = {name: tensor.clone() for name, tensor in first.state().items()}

    second = Trainer(random_network(_WITH_NORM, 9), _WITH_NORM, recipe)
    second.restore(state)

    for step in range(3, 6):
        assert second.step(_batch(step), step, 0.1) == first.step(_batch(step), step, 0.1)
    ours, theirs = first.state(), second.state()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[one], theirs[one]) for one in ours)


def test_dropout_depends_on_the_seed_and_the_image_alone():
    """A showing that is done again, by another process, drops the same; another one does not."""
    recipe = dataclasses.replace(_RECIPE, learning_rate=0.0)
    batch = _batch()
    losses = []
    for seed, first in ((1, 0), (1, 0), (2, 0), (1, 9)):
        trainer = Trainer(random_network(_RECORD, 0), _RECORD, recipe, seed=seed)
        shown = Batch(batch.images, batch.truths, range(first, first + 4))
        losses.append(trainer.step(shown, 7, 0.0).item())

    assert losses[0] == losses[1]
    assert len(set(losses)) == 3


def test_dropout_drops_its_share_and_scales_the_rest():
    """Half of the elements are zero, the others doubled; each pass of an image draws anew."""
    dropout = ImageDropout(0.5)
    dropout.expect(["0 1", "0 2"])
    ones = torch.ones(2, 8, 40, 40)

    first, second = dropout(ones), dropout(ones)

    assert set(first.unique().tolist()) == {0.0, 2.0}
    assert first.mean() == pytest.approx(1, abs=0.02)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    assert torch.equal(dropout.eval()(ones), ones)


def test_an_evaluation_is_what_a_replica_says():
    """The matrix is that of `Predictor`'s masks, and training goes on in training mode."""
    network = random_network(_WITH_NORM, 0)
    trainer = Trainer(network, _WITH_NORM, _RECIPE)
    batch = _batch(3, 10, (37, 50))

    found = trainer.evaluate(zip(batch.images, batch.truths, strict=True))

    assert network.training
    predictor = Predictor(random_network(_WITH_NORM, 0), _WITH_NORM)
    masks = [one.mask for one in predictor.predict(batch.images) if one is not None]
    assert found.matrix == ConfusionMatrix.of(np.stack(batch.truths), np.stack(masks), 3)
    assert np.array_equal(np.stack(trainer.predict(batch.images)), np.stack(masks))


def test_the_loss_of_an_evaluation_is_that_of_the_labelled_pixels_of_all_images():
    """It is the mean over them all, of images of any size; without any it is not a number."""
    trainer = Trainer(random_network(_WITH_NORM, 0), _WITH_NORM, _RECIPE)
    small, large = _batch(2, 1, (20, 30)), _batch(9, 9, (37, 50))
    images, truths = [*small.images, *large.images], [*small.truths, *large.truths]
    truths[0] = np.full_like(truths[0], 255)
    truths[3][:10] = 255

    found = trainer.evaluate(zip(images, truths, strict=True))

    predictor = Predictor(random_network(_WITH_NORM, 0), _WITH_NORM)
    log_p = [
        torch.from_numpy(one.scores).log_softmax(0).numpy()
        for one in predictor.predict(images, with_scores=True)
        if one is not None and one.scores is not None
    ]
    of_pixels = [
        np.take_along_axis(scores, np.minimum(truth, 2)[None].astype(np.int64), 0)[0][truth != 255]
        for scores, truth in zip(log_p, truths, strict=True)
    ]
    assert found.loss == pytest.approx(-np.concatenate(of_pixels).mean(), rel=1e-5)
    assert math.isnan(trainer.evaluate([(images[0], truths[0])]).loss)


def test_the_norm_of_the_gradients_is_that_before_they_are_clipped():
    """Without momentum, weights move by the rate times the gradients; clipping changes no norm."""
    plain = dataclasses.replace(_RECIPE, momentum=0.0, weight_decay=0.0, bias_rate=1.0)
    norms: list[float] = []
    for most in (0.0, 0.01):
        recipe = dataclasses.replace(plain, max_gradient_norm=most)
        trainer = Trainer(random_network(_WITH_NORM, 0), _WITH_NORM, recipe)
        assert math.isnan(trainer.gradient_norm)
        before = [one.detach().clone() for one in trainer.network.parameters()]

        trainer.step(_batch(), 0, 0.0)

        after = trainer.network.parameters()
        moved = [(new - old).flatten() for new, old in zip(after, before, strict=True)]
        norms.append(trainer.gradient_norm)
        step = torch.cat(moved).norm().item() / trainer.rate(0, 0.0)
        assert step == pytest.approx(most or trainer.gradient_norm, rel=1e-3)

    assert norms[0] == norms[1]


def test_the_running_mean_is_what_is_kept():
    """With `ema_decay` the evaluated network lags behind the trained one, and is another one."""
    recipe = dataclasses.replace(_RECIPE, ema_decay=0.9)
    trainer = Trainer(random_network(_WITH_NORM, 0), _WITH_NORM, recipe)
    start = trainer.network.state_dict()["classifier.weight"].clone()

    trainer.step(_batch(), 0, 0.0)

    trained = trainer.state()["network/classifier.weight"]
    kept = trainer.network.state_dict()["classifier.weight"]
    torch.testing.assert_close(kept, start + 0.9 * (trained - start))


def test_weights_that_are_not_finite_are_no_state():
    """NaN in the weights is an error, so that no checkpoint ever holds it."""
    trainer = Trainer(_network(_RECORD), _RECORD, dataclasses.replace(_RECIPE, learning_rate=1e30))
    for step in range(3):
        trainer.step(_batch(), step, 0.0)

    with pytest.raises(FloatingPointError, match="is not finite"):
        trainer.state()


def test_biases_learn_at_twice_the_rate_and_do_not_decay():
    """As the paper has it: of kernels a share is taken off, of biases nothing."""
    recipe = dataclasses.replace(_RECIPE, learning_rate=0.1, weight_decay=0.5)
    network = _network(_RECORD)
    with torch.no_grad():
        network.fc6.bias.fill_(1.0)
    kernel = network.fc6.weight.detach().clone()
    trainer = Trainer(network, _RECORD, recipe)
    batch = _batch()
    nothing = [np.full_like(truth, 255) for truth in batch.truths]
    empty = Batch(batch.images, nothing, batch.places)

    trainer.step(empty, 0, 0.0)

    torch.testing.assert_close(network.fc6.weight.detach(), kernel * (1 - 0.1 * 0.5))
    assert (network.fc6.bias == 1).all()
    rates = {group["lr"] for group in trainer._optimizer.param_groups}
    assert rates == {0.1, 0.2}


def test_a_start_keeps_all_but_the_scores():
    """Weights for other classes start anew where classes are channels, and nowhere else."""
    wide = dataclasses.replace(_RECORD, classes=numbered_classes(5))
    network, given = build_recorded(_RECORD), random_network(wide, 3).state_dict()

    fresh = start_from(network, given)

    assert fresh == ["score_fr.weight", "score_fr.bias"]
    assert torch.equal(network.state_dict()["fc7.weight"], given["fc7.weight"])


@pytest.mark.parametrize("upsampling", ["fixed", "learned"])
def test_classes_of_one_name_keep_their_scores(upsampling: str):
    """As many classes with other names: shared ones keep their channels, wherever they stand."""
    record = dataclasses.replace(_RECORD, upsampling=upsampling)
    own, given = ["sky", "road", "car"], ["road", "sea", "sky"]
    network, start = build_recorded(record), random_network(record, 3).state_dict()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    fresh = start_from(network, start, (own, given))

    after = network.state_dict()
    assert {"score_fr.weight", "score_fr.bias"} <= set(fresh)
    for name in ("score_fr.weight", "score_fr.bias"):
        assert torch.equal(after[name][0], start[name][2])
        assert torch.equal(after[name][1], start[name][0])
        assert torch.equal(after[name][2], before[name][2])
    if upsampling == "learned":
        kernels = after["upscore.weight"]
        assert torch.equal(kernels[0, 1], start["upscore.weight"][2, 0])
        assert torch.equal(kernels[2, 1], before["upscore.weight"][2, 1])
    assert torch.equal(after["fc7.weight"], start["fc7.weight"])


def test_the_loss_is_taken_where_the_ground_truth_is():
    """Scores at half the size are brought to the truth's, and a step is that of their loss."""
    batch = _batch()
    double = [truth.repeat(2, 0).repeat(2, 1) for truth in batch.truths]
    trainer = Trainer(random_network(_WITH_NORM, 0), _WITH_NORM, _RECIPE)
    images, truths = trainer._to_device(Batch(batch.images[:1], double[:1], batch.places[:1]))
    scores = trainer._parallel(trainer._preprocess(images))
    expected = F.cross_entropy(
        F.interpolate(scores, truths.shape[1:], mode="bilinear"),
        truths,
        ignore_index=255,
        reduction="sum",
    )

    found = trainer._loss(images, truths, torch.tensor(1.0), 0.0)

    torch.testing.assert_close(found, expected)


def test_a_finer_stage_starts_from_the_coarser_one():
    """FCN-16s takes all of FCN-32s; its skip starts at zero, so that it first says the same."""
    coarse = random_network(_RECORD, 0)
    finer = build_recorded(dataclasses.replace(_RECORD, network="fcn16s_vgg16"))

    fresh = start_from(finer, coarse.state_dict())

    assert fresh == ["score_pool4.weight", "score_pool4.bias"]
    assert not finer.score_pool4.weight.any()


def test_a_start_that_does_not_fit_is_refused():
    """Weights of another width are refused by name."""
    narrow = random_network(dataclasses.replace(_RECORD, width=4), 0)
    with pytest.raises(CheckpointError, match=r"conv1_1\.weight"):
        start_from(build_recorded(_RECORD), narrow.state_dict())


def test_images_are_seen_at_the_scale_of_the_record():
    """`image_scale` shows the network a smaller image and gives a mask of the image's size."""
    image = random_pixels(0, 48, 64, 3)
    network = random_network(_WITH_NORM, 0)
    half = dataclasses.replace(_WITH_NORM, image_scale=0.5)

    [found] = Predictor(network, half).predict([image])
    [expected] = Predictor(network, _WITH_NORM, scales=(0.5,)).predict([image])

    assert found is not None
    assert expected is not None
    assert found.mask.shape == (48, 64)
    assert np.array_equal(found.mask, expected.mask)
