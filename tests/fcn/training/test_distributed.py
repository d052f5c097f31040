"""Several workers: batch norms and sums over real processes with gloo."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fcn.training.batch_norm import CrossWorkerBatchNorm, share_batch_norms
from fcn.training.distributed import sum_over_workers, world_size
from tests.product import REPOSITORY

_WORKER = """
import sys, torch, torch.distributed as dist
from torch import nn
from fcn.training.batch_norm import share_batch_norms
from fcn.training.distributed import rank, sum_over_workers
folder, number, worker = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
dist.init_process_group("gloo", f"file://{folder}/meet", rank=worker, world_size=number)
given = torch.load(f"{folder}/given.pt")
network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
network.load_state_dict(given["state"])
share_batch_norms(network, torch.device("cpu"))
# Uneven parts: one image here, three there.
part = slice(0, 1) if worker == 0 else slice(1, 4)
images = given["images"][part].requires_grad_()
(network(images) * given["factors"][part]).sum().backward()
state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
with torch.no_grad():
    half = network[1](given["factors"][part].bfloat16())
gradients = {name: sum_over_workers(p.grad) for name, p in network.named_parameters()}
torch.save({"images": images.grad, "gradients": gradients, "state": state, "half": half},
           f"{folder}/{worker}.pt")
"""


@pytest.fixture(scope="module")
def given() -> dict:
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    return {
        "state": {name: tensor.clone() for name, tensor in network.state_dict().items()},
        "images": 3 + 2 * torch.randn(4, 2, 5, 6, generator=generator),
        "factors": torch.randn(4, 3, 5, 6, generator=generator),
    }


def test_a_batch_norm_sees_the_images_of_all_workers(given: dict, tmp_path: Path):
    """Two processes have the gradients and the running statistics of one that has all images.

    In half precision they say in half precision what it says.
    """
    torch.save(given, tmp_path / "given.pt")
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, str(tmp_path), "2", str(index)], cwd=REPOSITORY
        )
        for index in range(2)
    ]
    assert [worker.wait(100) for worker in workers] == [0, 0]
    found = [torch.load(tmp_path / f"{index}.pt") for index in range(2)]

    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    network.load_state_dict(given["state"])
    images = given["images"].clone().requires_grad_()
    (network(images) * given["factors"]).sum().backward()

    together = torch.cat([one["images"] for one in found])
    torch.testing.assert_close(together, images.grad, rtol=1e-4, atol=1e-5)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(
            found[0]["gradients"][name], parameter.grad, rtol=1e-4, atol=1e-4
        )
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(found[1]["state"][name], tensor)
    half = torch.cat([one["half"] for one in found])
    torch.testing.assert_close(half, network[1](given["factors"].bfloat16()), rtol=1e-2, atol=1e-2)


def test_alone_nothing_is_shared():
    """One worker is all there is: sums are what they were, batch norms stay."""
    network = nn.Sequential(nn.BatchNorm2d(2))

    assert world_size() == 1
    assert sum_over_workers(torch.ones(3)).sum() == 3
    assert type(share_batch_norms(network, torch.device("cpu"))[0]) is nn.BatchNorm2d


def test_a_frozen_batch_norm_stays_frozen(monkeypatch: pytest.MonkeyPatch):
    """Shared over workers it keeps its parameters themselves, and so what is trained of them."""
    monkeypatch.setattr("fcn.training.batch_norm.world_size", lambda: 2)
    network = nn.Sequential(nn.BatchNorm2d(2).requires_grad_(requires_grad=False))
    before = list(network.parameters())

    share_batch_norms(network, torch.device("cpu"))

    assert isinstance(network[0], CrossWorkerBatchNorm)
    assert all(one is other for one, other in zip(network.parameters(), before, strict=True))
    assert not any(one.requires_grad for one in network.parameters())


def test_a_shared_batch_norm_alone_is_a_batch_norm():
    """Without other workers, and in evaluation, it computes what PyTorch's does."""
    images = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    ours, theirs = CrossWorkerBatchNorm(3), nn.BatchNorm2d(3)

    assert torch.equal(ours(images), theirs(images))
    assert torch.equal(ours.eval()(images), theirs.eval()(images))


_TRAINER = """
import dataclasses, sys, numpy as np, torch, torch.distributed as dist
from fcn.weights.classes import numbered_classes
from fcn.weights.record import Checkpoint
from fcn.training.recipes import RECIPES
from fcn.training.batch import Batch
from fcn.training.trainer import Trainer
from fcn.weights.files import random_network
from fcn.training.distributed import sum_over_workers
folder, number, worker = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
network, auxiliary_loss = sys.argv[4], float(sys.argv[5])
torch.set_num_threads(1)
torch.manual_seed(0)
if number > 1:
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=worker, world_size=number)
record = Checkpoint(network, numbered_classes(3), width=4)
recipe = dataclasses.replace(RECIPES["paper"], batch_size=4, learning_rate=0.05)
recipe = dataclasses.replace(recipe, micro_batch_size=None, auxiliary_loss=auxiliary_loss)
trainer = Trainer(random_network(record, 0), record, recipe, class_weights=(1.0, 2.0, 3.0))
losses = []
for step in range(6):
    random = np.random.default_rng(step)
    images = list(random.integers(0, 256, (4, 33, 40, 3), dtype=np.uint8))
    truths = [image[..., 0] % 3 for image in images]
    mine = slice(worker * 4 // number, (worker + 1) * 4 // number)
    batch = Batch(images[mine], truths[mine], range(4)[mine])
    losses.append(sum_over_workers(trainer.step(batch, step, 0.0)).item())
print(*losses)
found = trainer.evaluate(list(zip(images, truths))[mine])
print(*found.matrix.counts.ravel())
print(found.loss)
"""


def _train(folder: Path, number: int, *network: str) -> list[list[float]]:
    """Run the script above in some processes; give what the first one prints."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _TRAINER, str(folder), str(number), str(index), *network],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(number)
    ]
    printed = [process.communicate(timeout=100)[0] for process in processes]
    return [[float(word) for word in line.split()] for line in printed[0].splitlines()]


@pytest.mark.parametrize(
    ("number", "network"), [(2, ("fcn_all_skips", "0")), (3, ("fcn_pyramid", "0.5"))]
)
def test_workers_take_the_steps_of_one_with_batch_norm(
    number: int, network: tuple[str, str], tmp_path: Path
):
    """A network with batch norm has the same losses and evaluation on two workers as on one.

    So it has on three, which share four images unevenly, with an auxiliary head.
    """
    one, many = _train(tmp_path, 1, *network), _train(tmp_path, number, *network)

    assert many[0] == pytest.approx(one[0], abs=1e-4)
    assert sum(many[1]) == sum(one[1]) == 4 * 33 * 40
    assert many[1] == pytest.approx(one[1], abs=60)
