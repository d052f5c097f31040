"""Replicas on a real cluster that is too small, grows, or is shared."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.labelling.cost import Work
from tests.jobs.training_product import PLAIN, scenes, train_flags
from tests.product import draw_photographs, label_flags, start, the_run, wait_for
from tests.ray_autoscaling import growing_cluster
from tests.ray_nodes import Head, ray_head, ray_worker

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head(dashboard=False) as found:
        yield found


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photographs(tmp_path_factory.mktemp("photographs"), 30, (240, 320))


def label(head: Head, photographs: Path, folder: Path, *flags: object) -> subprocess.Popen[bytes]:
    """Start a run on the cluster; its log is folder/log."""
    arguments = label_flags(
        *(photographs, folder / "out", "--ray-address", head.address, "--max-shard-images", 1),
        *("--log-interval-s", 1, *flags),
    )
    return start(arguments, folder / "log", **head.environ())


def replicas(output: Path) -> set[str]:
    """Name the processes that have labelled shards so far."""
    files = output.glob("runs/*/commits/*.parquet")
    return {Work.of_metadata(pq.read_schema(file).metadata).replica for file in files}


def test_a_wait_for_gpus_is_reported_and_ends(head: Head, photographs: Path, tmp_path: Path):
    """Without a GPU the run says what it waits for, and ends with 5 after max_wait_minutes."""
    flags = ("--gpus-per-replica", 1, "--max-wait-minutes", 0.1)
    process = label(head, photographs, tmp_path, *flags)

    assert process.wait(120) == 5
    log = (tmp_path / "log").read_text()
    assert "waiting for room for 1 replica(s) with 1 CPU and 1 GPU each" in log
    assert "it has 2 CPU and 0 GPU in all; run the same command again to resume" in log


def test_training_waits_for_gpus_as_labelling_does(head: Head, tmp_path: Path):
    """Without a GPU a training says what it waits for, and ends with 5."""
    flags = ("--gpus-per-worker", 1, "--max-wait-minutes", 0.1, "--ray-address", head.address)
    command = train_flags(scenes(tmp_path / "data", 8, 2), tmp_path, "run", *PLAIN, *flags)
    process = start(command, tmp_path / "log", **head.environ())

    assert process.wait(120) == 5
    assert "waiting for room for 1 worker(s) with 1 CPU and 1 GPU" in (tmp_path / "log").read_text()


def test_a_wait_is_stopped_in_order(head: Head, photographs: Path, tmp_path: Path):
    """SIGTERM while a run waits for room ends it with 5."""
    process = label(head, photographs, tmp_path, "--min-replicas", 2, "--cpus-per-replica", 2)
    log = tmp_path / "log"
    wait_for(lambda: "waiting for room" in log.read_text(), process, log)
    process.terminate()

    assert process.wait(60) == 5


def test_a_node_that_is_added_is_used(head: Head, photographs: Path, tmp_path: Path):
    """A run that has one replica gets a second one when a node joins, and says so."""
    many = draw_photographs(tmp_path / "many", 600, (240, 320))
    process = label(head, many, tmp_path, "--cpus-per-replica", 1, "--scales", "[1,1.5,2]")
    log = tmp_path / "log"
    wait_for(lambda: len(replicas(tmp_path / "out")) == 1, process, log)
    with ray_worker(head, head.environ(), num_cpus=2):
        wait_for(lambda: len(replicas(tmp_path / "out")) == 2, process, log)
        # Enough is seen; the rest would take minutes.
        process.terminate()
        assert process.wait(60) == 5
    assert "2 replica(s) at work" in log.read_text()


def test_a_cluster_grows_from_nothing(photographs: Path, tmp_path: Path):
    """On a head without CPUs the run asks for its replicas, and Ray's autoscaler starts nodes.

    It begins with one of them, and has both in the end.
    """
    many = draw_photographs(tmp_path / "many", 200, (240, 320))
    with growing_cluster(tmp_path) as empty:
        process = label(empty, many, tmp_path, "--cpus-per-replica", 1, "--max-replicas", 2)
        assert process.wait(240) == 0, (tmp_path / "log").read_text()

    log = (tmp_path / "log").read_text()
    assert "waiting for room for 1 replica(s)" in log
    assert "the cluster has 0 CPU and 0 GPU in all" in log
    assert len(replicas(tmp_path / "out")) == 2


def test_max_replicas_is_kept(head: Head, photographs: Path, tmp_path: Path):
    """With max_replicas=1 a run has one replica, whatever room there is."""
    with ray_worker(head, head.environ(), num_cpus=2):
        process = label(head, photographs, tmp_path, "--max-replicas", 1)
        assert process.wait(180) == 0, (tmp_path / "log").read_text()

    assert len(replicas(tmp_path / "out")) == 1


def test_two_jobs_share_a_cluster(head: Head, photographs: Path, tmp_path: Path):
    """Begun at once where there is room for one, both end with 0: one waits for the other."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    jobs = [label(head, photographs, folder) for folder in folders]

    assert [job.wait(180) for job in jobs] == [0, 0]
    logs = [(folder / "log").read_text() for folder in folders]
    assert any("waiting for room" in log and "there is room after" in log for log in logs)
    for folder in folders:
        run = the_run(f"file://{folder}/out")
        assert run.finished()
