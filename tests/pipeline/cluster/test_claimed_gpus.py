"""A node that claims a GPU and has none that PyTorch can use: its driver is missing, or old."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.jobs.training_product import PLAIN, scenes, train_flags
from tests.product import REPOSITORY, draw_photographs, label_flags
from tests.ray_nodes import Head, ray_head

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU"),
]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head(dashboard=False, more_flags=lambda _: ["--num-gpus=1"]) as found:
        yield found


def _run(head: Head, *command: object) -> subprocess.CompletedProcess[str]:
    python = head.environ()["PATH"].partition(":")[0] + "/python"
    return subprocess.run(
        [python, "-m", "jobs", *map(str, command), "--ray-address", head.address],
        cwd=REPOSITORY,
        env=head.environ(),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def test_label_ends_with_versions_and_remedy(head: Head, tmp_path: Path) -> None:
    """It is a setting that can't be, exit code 2, and no death of a node that is waited for."""
    photographs = draw_photographs(tmp_path / "in", 2)
    done = _run(head, *label_flags(photographs, tmp_path / "out", "--gpus-per-replica", 1))
    assert done.returncode == 2, done.stderr
    assert "a replica's device: cuda can't be used by PyTorch" in done.stderr
    assert "gpus_per_replica=0" in done.stderr


def test_train_ends_with_versions_and_remedy(head: Head, tmp_path: Path) -> None:
    """As above."""
    data = scenes(tmp_path / "data", 8, 2)
    flags = (*PLAIN, "--gpus-per-worker", 1, "--max-wait-minutes", 2)
    done = _run(head, *train_flags(data, tmp_path, "run", *flags))
    assert done.returncode == 2, done.stderr
    assert re.search(r"a worker's device: PyTorch \d.* can use no GPU", done.stderr)
    assert "gpus_per_worker=0" in done.stderr


def test_doctor_finds_it_before(head: Head, tmp_path: Path) -> None:
    """The pre-flight check names the same, so that nobody has to start a run for it."""
    photographs = draw_photographs(tmp_path / "in", 2)
    _, *flags = label_flags(photographs, tmp_path / "out", "--gpus-per-replica", 1)
    done = _run(head, "doctor", *flags)
    assert done.returncode == 2, done.stderr
    assert "can't be used by PyTorch" in done.stdout
