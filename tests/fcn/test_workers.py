"""Several workers: batch norms and sums over two real processes with gloo."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fcn.workers import CrossWorkerBatchNorm, share_batch_norms, sum_over_workers, world_size
from tests.product import REPOSITORY

_WORKER = """
import sys, torch, torch.distributed as dist
from torch import nn
from fcn.workers import rank, share_batch_norms, sum_over_workers
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
gradients = {name: sum_over_workers(p.grad) for name, p in network.named_parameters()}
torch.save({"images": images.grad, "gradients": gradients, "state": network.state_dict()},
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
    """Two processes have the gradients and the running statistics of one that has all images."""
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


def test_alone_nothing_is_shared():
    """One worker is all there is: sums are what they were, batch norms stay."""
    network = nn.Sequential(nn.BatchNorm2d(2))

    assert world_size() == 1
    assert sum_over_workers(torch.ones(3)).sum() == 3
    assert type(share_batch_norms(network, torch.device("cpu"))[0]) is nn.BatchNorm2d


def test_a_shared_batch_norm_alone_is_a_batch_norm():
    """Without other workers, and in evaluation, it computes what PyTorch's does."""
    images = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    ours, theirs = CrossWorkerBatchNorm(3), nn.BatchNorm2d(3)

    assert torch.equal(ours(images), theirs(images))
    assert torch.equal(ours.eval()(images), theirs.eval()(images))
