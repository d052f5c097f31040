"""Clusters of several nodes: one that dies, one that is taken away, and two jobs at once."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main
from pipeline.labelling.cost import Work
from pipeline.labelling.history import History
from pipeline.store.storage import Storage
from tests.fault_proxy import Gate, fault_proxy
from tests.jobs.test_kill import Undisturbed, assert_same
from tests.jobs.training_product import PLAIN, lines, scenes, train_flags, workers
from tests.product import (
    draw_photographs,
    label_flags,
    mask_hashes,
    start,
    tables,
    the_run,
    wait_for,
)
from tests.ray_nodes import Head, Node, ray_head, ray_worker
from tests.servers import Server

# The machine may have other work.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

_NUM_PHOTOGRAPHS = 40
_FLAGS = ("--max-shard-images", 1, "--lock-lease-s", 2, "--delta-log")
# What differs between the photographs on a disk and the same ones in a bucket.
_OF_PLACE = {"uri", "etag", "image_id"}
# Or between masks as files and in tars.
_OF_KIND = {"mask_uri", "mask_offset", "mask_bytes"}
# 60 steps of 8 of 12 images, every one of them saved.
_STEPS = (*PLAIN, "--batch-size", 8, "--epochs", 40, "--checkpoint-interval-s", 1e-6)
_NUM_STEPS = 60
# An evaluation after each step with which an epoch ends.
_EVALUATED = [-(-3 * epoch // 2) for epoch in range(1, 41)]
# Ray Data asks every second which nodes are being taken away.
_LEARNS_S = 5


@dataclass(frozen=True)
class Cluster:
    """A head without CPUs, and the nodes with two CPUs each that have joined it."""

    head: Head
    joined: list[Node]
    stack: ExitStack

    def nodes(self, number: int) -> list[Node]:
        """Return the nodes that run, after so many have joined as are missing."""
        while len(self._running()) < number:
            node = ray_worker(self.head, self.head.environ(), 2)
            self.joined.append(self.stack.enter_context(node))
        return self._running()

    def _running(self) -> list[Node]:
        return [node for node in self.joined if node.runs]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_head(dashboard=False, num_cpus=0) as head, ExitStack() as stack:
        yield Cluster(head, [], stack)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = draw_photographs(tmp_path_factory.mktemp("photographs"), _NUM_PHOTOGRAPHS)
    output = tmp_path_factory.mktemp("undisturbed")
    # A process of its own: its Ray ends with it.
    command = label_flags(folder, output / "out", *_FLAGS)
    assert start(command, output / "log").wait(120) == 0, (output / "log").read_text()
    run = the_run(f"file://{output}/out")
    return Undisturbed(folder, tables(run), mask_hashes(run))


@dataclass(frozen=True)
class Place:
    """A folder of its own in a store; `flag` is the setting that says where the store is."""

    uri: str
    flag: str = ""
    endpoint_url: str = ""

    @property
    def flags(self) -> tuple[str, ...]:
        """What a command needs to reach it."""
        return (self.flag, self.endpoint_url) if self.flag else ()

    @property
    def storage(self) -> Storage:
        """What reads and writes it in this process."""
        name = self.flag.strip("-").replace("-", "_")
        endpoint: dict[str, Any] = {name: self.endpoint_url} if name else {}
        return Storage(**endpoint)


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return a place on the disk, or in a new bucket of the server that the test names."""
    if request.param == "disk":
        return Place(f"file://{tmp_path}/store")
    server = request.getfixturevalue(request.param)
    if isinstance(server, Server):
        return Place(f"s3://{server.make_bucket()}", "--s3-endpoint-url", server.endpoint_url)
    return Place(server.make_bucket(), server.flag, server.endpoint_url)


@dataclass(frozen=True)
class Labelling:
    """A `label` command on a cluster, from bucket to bucket by way of a proxy."""

    process: subprocess.Popen[bytes]
    log: Path
    place: Place

    @property
    def output(self) -> str:
        """Where it writes."""
        return f"{self.place.uri}/out"

    @property
    def storage(self) -> Storage:
        """What reads that, without the proxy."""
        return self.place.storage

    def works(self) -> list[Work]:
        """Read from the commit records what each shard has cost."""
        found = (one.uri for one in self.storage.walk(f"{self.output}/runs"))
        records = (self.storage.read(uri) for uri in found if "/commits/" in uri)
        schemas = (pq.read_schema(pa.BufferReader(record)) for record in records)
        return [Work.of_metadata(schema.metadata) for schema in schemas]

    def replica_on(self, some: list[Node]) -> Node | None:
        """Return a node of some, one of whose processes has committed a shard."""
        pids = {pid_of(work) for work in self.works()}
        return next((node for node in some if pids & node.pids()), None)

    def assert_whole(self, undisturbed: Undisturbed) -> None:
        """The command ends with 0, and leaves what an undisturbed run leaves."""
        assert self.process.wait(240) == 0, self.log.read_text()
        assert main(["verify", self.output, *self.place.flags]) == 0
        assert len(self.storage.children(f"{self.output}/runs")) == 1
        run = the_run(self.output, self.storage)
        but_for = _OF_PLACE | (_OF_KIND if run.masks_in_tars else set())
        assert_same(run, undisturbed, but_for=but_for)


def pid_of(work: Work) -> int:
    """Return the process of the replica; the names of hosts are all the same here."""
    return int(work.replica.rpartition(":")[2])


@contextmanager
def started(head: Head, command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command on a cluster; with the block it ends."""
    process = start([*command, "--ray-address", head.address], log, **head.environ())
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def labelling(
    head: Head,
    place: Place,
    undisturbed: Undisturbed,
    log: Path,
    held: tuple[str, str, int],
    kind: str = "files",
) -> Iterator[tuple[Labelling, Gate]]:
    """Start to label; requests of a method and a path are held after so many."""
    for photograph in undisturbed.photographs.iterdir():
        place.storage.write(f"{place.uri}/in/{photograph.name}", photograph.read_bytes())
    server = urlsplit(place.endpoint_url)
    with fault_proxy(f"http://{server.netloc}") as proxy, Gate(proxy, *held) as gate:
        endpoint = (place.flag, f"{proxy.endpoint_url}{server.path}")
        flags = (*_FLAGS, "--masks", kind, *endpoint)
        command = label_flags(f"{place.uri}/in", f"{place.uri}/out", *flags)
        with started(head, command, log) as process:
            yield Labelling(process, log, place), gate


@pytest.mark.parametrize(
    ("place", "number", "kind"),
    [
        ("s3", 3, "files"),
        ("s3", 2, "files"),
        ("s3", 2, "tar"),
        *product(("gs", "az"), (2,), ("files", "tar")),
    ],
    indirect=["place"],
)
def test_a_dead_node_loses_nothing(
    cluster: Cluster,
    place: Place,
    undisturbed: Undisturbed,
    tmp_path: Path,
    number: int,
    kind: str,
):
    """SIGKILL to a node with a replica, amid its work, costs nothing but time: the end is 0.

    So it is where the nodes that are left have the CPUs for no more replicas than they hold.
    """
    some, held = cluster.nodes(number), ("PUT", "commits", 8)
    log = tmp_path / "log"
    with labelling(cluster.head, place, undisturbed, log, held, kind) as (job, gate):
        wait_for(lambda: gate.holds and job.replica_on(some) is not None, job.process, job.log)
        doomed = job.replica_on(some)
        assert doomed is not None
        doomed.kill()
        assert len(job.works()) < _NUM_PHOTOGRAPHS
        gate.open()

        job.assert_whole(undisturbed)


def test_a_training_outlives_the_node_of_a_worker(cluster: Cluster, tmp_path: Path):
    """SIGKILL to the node of one of two workers: a third node takes over, and no step is lost."""
    data, log = scenes(tmp_path / "data", 12, 3), tmp_path / "log"
    # On nodes with two CPUs each worker has one of its own.
    flags = (*_STEPS, "--num-workers", 2, "--cpus-per-worker", 1.5)
    command = train_flags(data, tmp_path, "run", *flags)
    metrics = tmp_path / "run/metrics.jsonl"
    some = cluster.nodes(3)
    with started(cluster.head, command, log) as process:
        wait_for(lambda: metrics.exists() and len(lines(tmp_path / "run")) >= 4, process, log)
        hosts = [node for node in some if workers(psutil.Process(node.process.pid))]
        assert len(hosts) == 2
        hosts[0].kill()

        assert process.wait(240) == 0, log.read_text()

    found = lines(tmp_path / "run")
    assert [line["step"] for line in found] == _EVALUATED
    resumed = [int(step) for step in re.findall(r"resuming after step (\d+)", log.read_text())]
    assert resumed
    # The newest checkpoint may have been on its way.
    assert min(resumed) >= found[3]["step"] - 1


@pytest.mark.parametrize("kind", ["files", "tar"])
@pytest.mark.parametrize("run_ids", [("night", "night"), ("night", "morning")])
@pytest.mark.parametrize("place", ["disk", "s3", "gs", "az"], indirect=True)
def test_two_schedules_at_once_do_nothing_twice(
    cluster: Cluster,
    place: Place,
    undisturbed: Undisturbed,
    tmp_path: Path,
    run_ids: tuple[str, str],
    kind: str,
):
    """Of two equal commands one ends with 7, or finds all done; again, it changes no file.

    So it is with one run id and with two, wherever they write and whatever the masks lie in.
    """
    cluster.nodes(1)
    output, flags = f"{place.uri}/out", (*_FLAGS, "--masks", kind, *place.flags)
    commands = [
        label_flags(undisturbed.photographs, output, *flags, "--run-id", run_id)
        for run_id in run_ids
    ]
    with ExitStack() as stack:
        logs = [tmp_path / "first", tmp_path / "second"]
        pairs = zip(commands, logs, strict=True)
        both = [stack.enter_context(started(cluster.head, *pair)) for pair in pairs]
        codes = [process.wait(240) for process in both]
    assert sorted(codes) in ([0, 0], [0, 7]), [log.read_text() for log in logs]
    assert labelled_once(place, output)
    before = versions(place, output)

    for command in commands:
        with started(cluster.head, command, tmp_path / "again") as process:
            assert process.wait(240) == 0, (tmp_path / "again").read_text()

    assert main(["verify", output, "--all", *place.flags]) == 0
    assert labelled_once(place, output)
    after = versions(place, output)
    assert {uri: after[uri] for uri in before} == before
    [run] = [run for run in History(place.storage, output).runs() if run.record.num_images]
    assert mask_hashes(run) == undisturbed.masks


def labelled_once(place: Place, output: str) -> bool:
    """Whether every photograph has one row with a mask over all runs."""
    runs = [run for run in History(place.storage, output).runs() if run.record.num_images]
    ids = [row["image_id"] for run in runs for row in tables(run)[0] if row["status"] == "ok"]
    return len(ids) == len(set(ids)) == _NUM_PHOTOGRAPHS


def versions(place: Place, output: str) -> dict[str, str]:
    """Return the version of every object but the locks, which are of the moment."""
    found = place.storage.walk(output)
    return {one.uri: one.version for one in found if "/locks/" not in one.uri}


def drain(head: Head, node: Node) -> None:
    """Announce that a node will be taken away, as a cloud does with spot machines."""
    command = ["drain-node", "--address", head.address, "--node-id", node.node_id,
               "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot",
               "--deadline-remaining-seconds", "600"]  # fmt: skip
    ray = str(Path(sys.executable).parent / "ray")
    subprocess.run([ray, *command], env=head.environ(), check=True, timeout=60)


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_a_node_that_is_drained_gets_no_more_work(
    cluster: Cluster, place: Place, undisturbed: Undisturbed, tmp_path: Path
):
    """Once Ray has announced that a node goes, its replica begins no shard; the end is 0."""
    some, held = cluster.nodes(2), ("GET", "/in/photo", 16)
    with labelling(cluster.head, place, undisturbed, tmp_path / "log", held) as (job, gate):
        wait_for(lambda: gate.holds and job.replica_on(some) is not None, job.process, job.log)
        node = job.replica_on(some)
        assert node is not None
        its_pids = node.pids()
        drain(cluster.head, node)
        time.sleep(_LEARNS_S)
        opened_at = time.time()
        gate.open()

        job.assert_whole(undisturbed)
        later = [work for work in job.works() if work.started_at > opened_at]
        assert len(later) >= 10
        assert not {pid_of(work) for work in later} & its_pids
