"""The kill matrix: SIGKILL to the driver and all its Ray processes, at named and random moments.

After each kill the same command is run again, and what it leaves is compared with what a run
leaves that nobody has disturbed.
"""

import random
import subprocess
import threading
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import psutil
import pytest

from jobs.__main__ import main
from pipeline.labelling.runs import TABLES, Run
from pipeline.store.storage import Storage
from tests.fault_proxy import Fault, fault_proxy
from tests.product import draw_photographs, label, label_flags, mask_hashes, start, tables, the_run
from tests.servers import Server

pytestmark = pytest.mark.runs

_NUM_PHOTOGRAPHS = 40
_FLAGS = ("--max-shard-images", 4, "--lock-lease-s", 2, "--delta-log")
# Ray is up after some 8 s; the moments of the random kills lie around its work.
_RANDOM_SEEDS = (1, 2, 3, 4, 5)
# A store without put-if-absent, where the lock alone keeps two commands apart.
_ON_RCLONE = [
    ("naive_s3", "files", "before a commit"),
    ("naive_s3", "tar", "between tar and commit"),
    ("naive_s3", "files", "between tables and manifest"),
]
# `make test-faults` does them all, each of which takes half a minute.
_RARER = pytest.mark.faults
# What differs between masks as files and the same masks in tars.
_PLACES = {"mask_uri", "mask_offset", "mask_bytes"}


@dataclass(frozen=True)
class Undisturbed:
    """What a run leaves that nobody has disturbed."""

    photographs: Path
    tables: tuple[list[dict], list[dict]]
    masks: dict[str, str]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, ray_session: str) -> Undisturbed:
    folder = draw_photographs(tmp_path_factory.mktemp("photographs"), _NUM_PHOTOGRAPHS)
    output = tmp_path_factory.mktemp("undisturbed")
    assert label(folder, output, *_FLAGS) == 0
    run = the_run(f"file://{output}")
    return Undisturbed(folder, tables(run), mask_hashes(run))


def kill_everything(process: subprocess.Popen[bytes]) -> None:
    """Send SIGKILL to a process and to all that descend from it, in one sweep."""
    try:
        family = [*psutil.Process(process.pid).children(recursive=True), process]
    except psutil.NoSuchProcess:
        return
    for one in family:
        try:
            one.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


def assert_same(run: Run, undisturbed: Undisturbed, *, but_for: set[str]) -> None:
    images, statistics = tables(run)
    expected_images, expected_statistics = undisturbed.tables
    assert mask_hashes(run) == undisturbed.masks
    assert _without(images, but_for) == _without(expected_images, but_for)
    assert _without(statistics, but_for) == _without(expected_statistics, but_for)


def _without(rows: list[dict], names: set[str]) -> list[dict]:
    return [{name: row[name] for name in row if name not in names} for row in rows]


_MOMENTS = {
    "after the plan": (r"/run\.json", "after"),
    "amid the masks of a shard": (r"/masks/.*photo_017", "before"),
    "before a tar": (r"/masks/.*shard-000003\.tar", "before"),
    "between tar and commit": (r"/masks/.*shard-000003\.tar", "after"),
    "before a commit": (r"/commits/shard-000003", "before"),
    "after a commit": (r"/commits/shard-000003", "after"),
    "between tables and the record of their section": (r"/sections/00000", "before"),
    "between tables and manifest": (r"/manifest\.json", "before"),
    "between the Delta logs of the tables": (r"/images/_delta_log/0", "after"),
    "before _SUCCESS": (r"/_SUCCESS", "before"),
}
# Done with every change; `make test-faults` does all.
_OFTEN = {
    ("s3", "files", "amid the masks of a shard"),
    ("s3", "tar", "between tar and commit"),
    ("s3", "files", "between tables and manifest"),
}


def _has(kind: str, moment: str) -> bool:
    """Return whether masks of a kind have a moment."""
    of_kind = {"amid the masks of a shard": "files"}
    return of_kind.get(moment, "tar" if "tar" in moment else kind) == kind


@pytest.mark.parametrize(
    ("store", "kind", "moment"),
    [
        pytest.param(*case, marks=[] if case in _OFTEN else _RARER, id=", ".join(case))
        for case in (*product(("s3",), ("files", "tar"), _MOMENTS), *_ON_RCLONE)
        if _has(*case[1:])
    ],
)
def test_a_kill_at_a_named_moment_loses_nothing(
    undisturbed: Undisturbed,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    store: str,
    kind: str,
    moment: str,
):
    """Killed at this very request, the same command finishes what an undisturbed run leaves."""
    s3: Server = request.getfixturevalue(store)
    path, when = _MOMENTS[moment]
    bucket = s3.make_bucket()
    for photograph in undisturbed.photographs.iterdir():
        s3.put(bucket, f"in/{photograph.name}", photograph.read_bytes())
    places = (f"s3://{bucket}/in", f"s3://{bucket}/out")
    with fault_proxy(s3.endpoint_url) as proxy:
        killed = threading.Event()

        def kill() -> None:
            kill_everything(process)
            killed.set()

        proxy.faults.append(Fault("PUT", path, when, kill))
        flags = (*_FLAGS, "--s3-endpoint-url", proxy.endpoint_url, "--masks", kind)
        process = start(label_flags(*places, *flags), tmp_path / "log")
        assert killed.wait(120), (tmp_path / "log").read_text()

        assert label(*places, *flags) == 0

    storage = Storage(s3.endpoint_url)
    assert main(["verify", places[1], "--s3-endpoint-url", s3.endpoint_url]) == 0
    assert len(storage.children(f"{places[1]}/runs")) == 1
    for table in TABLES:
        commits = storage.children(f"{places[1]}/{table}/_delta_log")
        assert len(commits) == (0 if store == "naive_s3" else 1)
    # The photographs are the same, in another place.
    assert_same(
        the_run(places[1], storage), undisturbed, but_for={"uri", "etag", "image_id", *_PLACES}
    )


@pytest.mark.parametrize(
    ("seed", "kind"),
    [
        pytest.param(seed, kind, marks=[] if (seed, kind) == (1, "files") else [_RARER])
        for seed in _RANDOM_SEEDS
        for kind in ("files", "tar")
    ],
)
def test_a_kill_at_a_random_moment_loses_nothing(
    undisturbed: Undisturbed, tmp_path: Path, seed: int, kind: str
):
    """Killed whenever, the same command finishes on a disk what an undisturbed run leaves."""
    output = tmp_path / "out"
    flags = (*_FLAGS, "--masks", kind)
    process = start(label_flags(undisturbed.photographs, output, *flags), tmp_path / "log")
    # From the plan on, at a moment in the next 12 seconds, in which the whole run lies.
    while not list(output.glob("runs/*/run.json")) and process.poll() is None:
        time.sleep(0.01)
    time.sleep(random.Random(seed).uniform(0, 12))
    kill_everything(process)

    assert label(undisturbed.photographs, output, *flags) == 0

    assert main(["verify", str(output)]) == 0
    assert len(list((output / "runs").iterdir())) == 1
    assert not list(output.rglob("*fcn-tmp*"))
    assert_same(the_run(f"file://{output}"), undisturbed, but_for=_PLACES)
