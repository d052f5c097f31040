"""`label` from and to Google and Azure: whole after a kill, and after faults of the store."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from jobs.__main__ import main
from pipeline.labelling.runs import Run
from pipeline.store.storage import Storage
from tests.fault_proxy import Fault, Proxy, fault_proxy, refusal
from tests.jobs.test_kill import kill_everything
from tests.jobs.test_store_faults import do_without_ray
from tests.product import draw_photographs, label, label_flags, mask_hashes, start, tables, the_run
from tests.servers import CloudServer

pytestmark = [pytest.mark.runs, pytest.mark.usefixtures("ray_session")]

_NUM_IMAGES = 12
_FLAGS = ("--max-shard-images", 4, "--lock-lease-s", 2, "--io-timeout-s", 5)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photographs(tmp_path_factory.mktemp("photographs"), _NUM_IMAGES)


@pytest.fixture(scope="module")
def masks(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the hashes of the masks that a run on a disk leaves."""
    with pytest.MonkeyPatch.context() as patch:
        do_without_ray(patch)
        output = tmp_path_factory.mktemp("undisturbed")
        assert label(photographs, output, *_FLAGS) == 0
        return mask_hashes(the_run(f"file://{output}"))


@pytest.fixture(scope="module")
def real_masks(
    photographs: Path, ray_session: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Return the hashes of the masks that a network leaves, on a disk and undisturbed."""
    output = tmp_path_factory.mktemp("of_a_network")
    assert label(photographs, output, *_FLAGS) == 0
    return mask_hashes(the_run(f"file://{output}"))


def _fill(cloud: CloudServer, photographs: Path) -> str:
    bucket = cloud.make_bucket()
    storage = _storage(cloud)
    for path in sorted(photographs.iterdir()):
        storage.write(f"{bucket}/in/{path.name}", path.read_bytes())
    return bucket


def _storage(cloud: CloudServer) -> Storage:
    endpoint: dict[str, Any] = {f"{cloud.scheme}_endpoint_url": cloud.endpoint_url}
    return Storage(**endpoint)


@contextmanager
def _behind_a_proxy(cloud: CloudServer) -> Iterator[tuple[Proxy, tuple[object, ...]]]:
    """Run a proxy; give it, and the flags of a command that goes through it."""
    where = urlsplit(cloud.endpoint_url)
    with fault_proxy(f"http://{where.netloc}") as proxy:
        yield proxy, (*_FLAGS, cloud.flag, f"{proxy.endpoint_url}{where.path}")


def _whole_run(bucket: str, cloud: CloudServer) -> Run:
    assert main(["verify", f"{bucket}/out", cloud.flag, cloud.endpoint_url]) == 0
    storage = _storage(cloud)
    assert len(storage.children(f"{bucket}/out/runs")) == 1
    run = the_run(f"{bucket}/out", storage)
    images, _ = tables(run)
    assert [row["status"] for row in images] == ["ok"] * _NUM_IMAGES
    return run


def _cut_off(proxy: Proxy) -> None:
    for path, times in ((r"run(\.|%2E)json", 1), ("masks", 3), ("commits", 2), ("manifest", 1)):
        proxy.faults.append(Fault("PUT", path, "after", lambda: None, times=times))


def _busy(proxy: Proxy) -> None:
    for method, path in (("GET", "photo"), ("PUT", "masks"), ("GET", "prefix=")):
        busy = Fault(method, path, "before", lambda: refusal(503, "ServerBusy"), times=2)
        proxy.faults.append(busy)


@pytest.mark.parametrize(("disturb", "kind"), list(product((_cut_off, _busy), ("files", "tar"))))
def test_no_fault_of_a_cloud_costs_an_image(
    disturb: Callable[[Proxy], None],
    kind: str,
    cloud: CloudServer,
    photographs: Path,
    masks: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Answers that are lost and bursts of refusals are outlasted, and nothing is done twice."""
    do_without_ray(monkeypatch)
    bucket = _fill(cloud, photographs)
    with _behind_a_proxy(cloud) as (proxy, endpoint):
        flags = (*endpoint, "--masks", kind)
        disturb(proxy)
        assert label(f"{bucket}/in", f"{bucket}/out", *flags) == 0
        assert all(fault.struck for fault in proxy.faults), "it never struck"
        assert label(f"{bucket}/in", f"{bucket}/out", *flags) == 0
    assert mask_hashes(_whole_run(bucket, cloud)) == masks


@pytest.mark.faults
@pytest.mark.parametrize(
    ("path", "when"),
    [
        # Before it, there is no run yet.
        (r"run(\.|%2E)json", "after"),
        *product(
            ("masks", r"masks.*(\.|%2E)tar", "commits", "manifest", "(_|%5F)SUCCESS"),
            ("before", "after"),
        ),
    ],
)
def test_a_kill_loses_nothing(
    path: str,
    when: str,
    cloud: CloudServer,
    photographs: Path,
    tmp_path: Path,
    real_masks: dict[str, str],
) -> None:
    """Killed when this is written, the same command ends with every image in one whole run.

    Its masks are those of a run that nothing has disturbed.
    """
    bucket = _fill(cloud, photographs)
    with _behind_a_proxy(cloud) as (proxy, endpoint):
        killed = threading.Event()

        def kill() -> None:
            kill_everything(process)
            killed.set()

        proxy.faults.append(Fault("PUT", path, when, kill))
        flags = (*endpoint, "--masks", "tar" if path.endswith("tar") else "files")
        command = label_flags(f"{bucket}/in", f"{bucket}/out", *flags)
        process = start(command, tmp_path / "log")
        assert killed.wait(200), (tmp_path / "log").read_text()

        again = start(command, tmp_path / "log")
        assert again.wait(200) == 0, (tmp_path / "log").read_text()
    assert mask_hashes(_whole_run(bucket, cloud)) == real_masks
