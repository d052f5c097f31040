"""Gradient checkpointing: the same numbers from fewer activations."""

import copy
import dataclasses

import pytest
import torch

from fcn.architectures import ARCHITECTURES, AUXILIARY, BLOCKS, WIDTH
from fcn.models import Network
from fcn.training.batch import Batch
from fcn.training.recipes import find_recipe
from fcn.training.recomputed import recompute_blocks
from fcn.training.trainer import Trainer
from fcn.weights.classes import numbered_classes
from fcn.weights.files import random_network
from fcn.weights.record import Checkpoint
from tests.disk_runs import random_pixels


def _record(network: str) -> Checkpoint:
    width = 4 if WIDTH in ARCHITECTURES[network] else 64
    return Checkpoint(network, numbered_classes(3), width=width)


def _batch(seed: int) -> Batch:
    images = [random_pixels(seed + index, 40, 70, 3) for index in range(2)]
    return Batch(images, [image[..., 0] % 3 for image in images], range(seed, seed + 2))


@pytest.mark.parametrize(("network", "encoder_rate"), [
    ("fcn_all_skips", 1.0), ("fcn_pyramid", 1.0), ("fcn_pyramid", 0.0), ("fcn_lite0", 1.0),
])  # fmt: skip
def test_training_is_bit_for_bit_the_same(network: str, encoder_rate: float) -> None:
    """Losses, weights, the batch norms' means and an evaluation, with micro-batches, too."""
    auxiliary = 0.5 if encoder_rate and network in AUXILIARY else 0.0
    recipe = dataclasses.replace(
        find_recipe("modern", network),
        batch_size=2,
        micro_batch_size=1,
        auxiliary_loss=auxiliary,
        encoder_rate=encoder_rate,
    )
    found = []
    for again in (False, True):
        torch.manual_seed(0)
        record = _record(network)
        trainer = Trainer(random_network(record, 0), record, recipe, gradient_checkpointing=again)
        losses = [trainer.step(_batch(step), step, 0.1).item() for step in range(2)]
        evaluated = trainer.evaluate(zip(_batch(9).images, _batch(9).truths, strict=True))
        found.append((losses, trainer.state(), evaluated))
    (losses, state, evaluated), (same_losses, same_state, same_evaluated) = found
    assert losses == same_losses
    assert state.keys() == same_state.keys()
    assert [name for name in state if not torch.equal(state[name], same_state[name])] == []
    assert (evaluated.matrix.counts == same_evaluated.matrix.counts).all()


def _kept_bytes(network: Network) -> int:
    """Return the bytes that a forward pass keeps for the gradients."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network.train()(torch.randn(1, 3, 96, 128))
    return sum(kept.values()) - sum(one.nbytes for one in network.parameters())


@pytest.mark.parametrize(("network", "most"), [
    ("fcn_all_skips", 0.75), ("fcn_pyramid", 0.5), ("fcn_lite0", 0.5), ("fcn_resnet50", 0.5),
])  # fmt: skip
def test_less_is_kept_for_the_gradients(network: str, most: float) -> None:
    """At most so large a share of what all activations take, in a copy of the network, too."""
    plain = random_network(_record(network), 0)
    recomputed = copy.deepcopy(plain)
    recompute_blocks(recomputed, BLOCKS[network])
    all_bytes = _kept_bytes(plain)
    assert _kept_bytes(recomputed) < most * all_bytes
    assert _kept_bytes(copy.deepcopy(recomputed)) < most * all_bytes


def test_blocks_that_are_not_there_are_refused() -> None:
    """A network whose names have changed would silently keep everything."""
    with pytest.raises(ValueError, match="no block is called"):
        recompute_blocks(random_network(_record("fcn_pyramid"), 0), "stage.*")
