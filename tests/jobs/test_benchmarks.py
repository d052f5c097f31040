"""The benchmarks still run: what nobody calls for weeks breaks when somebody needs a figure."""

import subprocess
import sys

import pytest

from tests.product import REPOSITORY

pytestmark = pytest.mark.runs

# Those that need neither photographs nor minutes, each as small as it can be.
_SMALL = [
    "checkpointing --networks fcn_pyramid --crop 64 64 --batch-size 2 --steps 1",
    "commit_records --images 4",
    "mask_kinds --images 8 --shard 4",
    "networks --networks fcn_pyramid --height 32 --width 32 --batches 1 --rounds 1",
    "nights 3000 1 2",
    "outputs 60",
    "plan_memory 3000 folder",
    "publication --shards 2",
    "requests --number 5 --keys 20",
    "resume --shards 100",
    "tar_inputs --tars 1 --images 20 --fetched 5",
    "training_step --width 2 --crop 32 32 --steps 1 --rounds 1",
    "verifying --shards 1",
]


@pytest.mark.parametrize("benchmark", _SMALL)
def test_a_benchmark_ends_and_prints_figures(benchmark: str):
    """With 0, and with a table or lines of them."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", *benchmark.split()],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert any(sign.isdigit() for sign in ended.stdout.rstrip().splitlines()[-1]), ended.stdout
