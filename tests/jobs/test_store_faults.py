"""The matrix of store faults: whatever a store does, the run ends in order and can be resumed.

Each fault strikes a `label` whose shards are done in this process instead of in Ray's tasks, which
take no part in it: input, plan, lock, masks, commits and tables are in a bucket behind a proxy.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jobs.__main__ import main
from pipeline.labelling import chain
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import Receipt
from pipeline.labelling.shards import Shards
from pipeline.settings.label import LabelSettings
from pipeline.store.storage import Storage
from tests.disk_runs import label_tasks
from tests.fault_proxy import PASS, Fault, Reply, fault_proxy, page, refusal
from tests.product import draw_photographs, label, mask_hashes, tables, the_run
from tests.servers import Server

pytestmark = [pytest.mark.runs, pytest.mark.usefixtures("ray_session")]

_NUM_IMAGES = 12
_IMAGES = r"/in/photo"


@dataclass(frozen=True)
class Case:
    """A fault of a store.

    Attributes:
        faults: What strikes, made anew for each run.
        codes: The exit codes of the first command that may be.
        lasting: Whether it strikes until it is ended, after the first command.
        flags: Of the command, on top of those of all.
    """

    faults: Callable[[], list[Fault]]
    codes: tuple[int, ...] = (0,)
    lasting: bool = False
    flags: tuple[object, ...] = ()


def _always(method: str, path: str, reply: Reply, spared: int = 0) -> Callable[[], list[Fault]]:
    return lambda: [Fault(method, path, "before", lambda: reply, times=10**6, spared=spared)]


def _some(
    method: str,
    path: str,
    act: Callable[[], int | Reply | None],
    times: int = 3,
    when: str = "before",
) -> Callable[[], list[Fault]]:
    return lambda: [Fault(method, path, when, act, times=times)]


def _changed(
    method: str, path: str, change: Callable[[Reply], Reply], times: int = 10**6, spared: int = 0
) -> Callable[[], list[Fault]]:
    return lambda: [Fault(method, path, "after", times=times, change=change, spared=spared)]


def _shorter(reply: Reply) -> Reply:
    return replace(reply, length=len(reply.body) // 2)


def _longer(reply: Reply) -> Reply:
    return replace(reply, length=len(reply.body) + 100)


def _dripping(reply: Reply) -> Reply:
    return replace(reply, drip_s=0.2)


def _dropping_a_key(reply: Reply) -> Reply:
    """Leave the last object of a listing out."""
    head, found, tail = reply.body.rpartition(b"<Contents>")
    body = head + tail.partition(b"</Contents>")[2] if found else reply.body
    return replace(reply, body=body)


def _repeating_a_key(reply: Reply) -> Reply:
    """List the last object twice."""
    head, found, tail = reply.body.rpartition(b"<Contents>")
    entry, end, rest = tail.partition(b"</Contents>")
    body = head + (found + entry + end) * 2 + rest if found else reply.body
    return replace(reply, body=body)


def _without_etag(reply: Reply) -> Reply:
    return reply.without("ETag")


def _without_etags_in_it(reply: Reply) -> Reply:
    return replace(reply, body=re.sub(rb"<ETag>.*?</ETag>", b"", reply.body))


def _weak(reply: Reply) -> Reply:
    return reply.with_header("ETag", "W/{}".format)


def _chunked(reply: Reply) -> Reply:
    return replace(reply, chunked=True)


def _as_error(reply: Reply) -> Reply:
    return replace(refusal(200, "InternalError"), headers=reply.without("ETag").headers)


_SLOW_DOWN = refusal(503, "SlowDown")


def _limited(method: str, path: str, per_s: int) -> Fault:
    """Serve so many requests in a second, as a partition of S3 does, and refuse what is more."""
    served: Counter[int] = Counter()

    def act() -> int | Reply | None:
        second = int(time.monotonic())
        served[second] += 1
        return PASS if served[second] <= per_s else _SLOW_DOWN

    return Fault(method, path, "before", act, times=10**6)


_TELLING = {
    "a burst of 503": Case(
        lambda: [
            Fault(method, path, "before", lambda: _SLOW_DOWN, times=times)
            for method, path, times in (("GET", _IMAGES, 4), ("PUT", "/masks/", 4), ("HEAD", "", 2))
        ]
    ),
    "a rate that is limited": Case(
        lambda: [_limited("GET", _IMAGES, 4), _limited("PUT", "/masks/", 4)]
    ),
    "500 after effect": Case(_some("PUT", "/(masks|commits)/", lambda: 500, 4, "after")),
    "a listing that drops a commit": Case(_changed("GET", "prefix=.*commits", _dropping_a_key)),
    "an expired token": Case(
        _always("GET", _IMAGES, refusal(400, "ExpiredToken"), spared=5), (5,), lasting=True
    ),
    "rights withdrawn": Case(
        _always("GET", _IMAGES, refusal(403, "AccessDenied"), spared=4), (5,), lasting=True
    ),
    "no ETag, no length": Case(_changed("GET", _IMAGES, lambda one: _chunked(_without_etag(one)))),
    "a page for people, of a proxy": Case(
        _always("GET", _IMAGES, page(), spared=4), (5,), lasting=True
    ),
    "412 for what nobody has written": Case(
        lambda: [
            Fault("PUT", f"/commits/shard-00000{shard}", "before", lambda: 412, times=2)
            for shard in (0, 1)
        ]
    ),
}
# The one of the suite that strikes where masks are written.
_OF_MASKS = ("500 after effect",)
_OTHERS = {
    "cut before": Case(_some("PUT", "", lambda: None, 4)),
    "cut after": Case(_some("PUT", "/(masks|commits|run.json|manifest)", lambda: None, 5, "after")),
    "reads cut": Case(_some("GET", "", lambda: None, 5)),
    "500 before": Case(_some("GET", "", lambda: 500, 5)),
    "409": Case(_some("PUT", "/(masks|commits)/", lambda: 409, 3)),
    "412 without end": Case(_some("PUT", "/commits/shard-000001", lambda: 412, 4)),
    "no ETag after a write": Case(_changed("PUT", "/(masks|commits)/", _without_etag)),
    "no ETag anywhere": Case(
        lambda: [
            Fault("GET", "list-type", "after", times=10**6, change=_without_etags_in_it),
            Fault("GET", "", "after", times=10**6, change=_without_etag),
            Fault("HEAD", "", "after", times=10**6, change=_without_etag),
            Fault("PUT", "", "after", times=10**6, change=_without_etag),
        ]
    ),
    "weak ETags": Case(_changed("GET", _IMAGES, _weak)),
    "no Content-Length": Case(_changed("GET", "", _chunked)),
    "a shorter Content-Length": Case(_changed("GET", _IMAGES, _shorter, 3)),
    "a longer Content-Length": Case(_changed("GET", _IMAGES, _longer, 3)),
    "a body that drips": Case(_changed("GET", _IMAGES, _dripping, 2)),
    "a listing that drips": Case(_changed("GET", "list-type", _dripping, 1)),
    "no answer": Case(_some("GET", _IMAGES, lambda: _sleep(8), 2)),
    "no answer to a write": Case(_some("PUT", "/commits/", lambda: _sleep(8), 1)),
    "a clock that is wrong": Case(
        _always("GET", _IMAGES, refusal(403, "RequestTimeTooSkewed"), 2), (5,), lasting=True
    ),
    "keys that are deleted": Case(
        _always("PUT", "/masks/", refusal(403, "InvalidAccessKeyId"), 2), (5,), lasting=True
    ),
    "a bucket that is gone": Case(
        _always("GET", _IMAGES, refusal(404, "NoSuchBucket"), 4), (5,), lasting=True
    ),
    "images that are listed and not found": Case(
        _always("GET", _IMAGES, refusal(404, "NoSuchKey"), 0), (5,), lasting=True
    ),
    "a listing that repeats a key": Case(_changed("GET", "list-type", _repeating_a_key)),
    "an error as an object": Case(_changed("GET", _IMAGES, _as_error, 3)),
    "an error as a listing": Case(_changed("GET", "list-type", _as_error, 2)),
    "an error as the answer to a write": Case(
        _some("PUT", "/(masks|commits)/", lambda: refusal(200, "InternalError"), 3)
    ),
    "503 without end": Case(
        _always("PUT", "/masks/", _SLOW_DOWN, 2),
        (5,),
        lasting=True,
        flags=("--io-patience-s", 2),
    ),
    "nobody there in the middle": Case(
        _some("PUT", "/masks/", lambda: None, 10**6),
        (5,),
        lasting=True,
        flags=("--io-patience-s", 2),
    ),
}


def _sleep(seconds: float) -> int:
    time.sleep(seconds)
    return 504


class _NoMetrics(nullcontext[None]):
    """Counts nothing: Ray's metrics need Ray."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def __enter__(self) -> Any:
        return self

    def add(self, _: Receipt) -> None:
        """Pass over a receipt."""


class _NothingBeside:
    """Publishes nothing while the run goes on, which workers do."""

    def __init__(self, *_: object) -> None:
        pass

    def saw(self, _: Receipt) -> None:
        pass

    def finish(self) -> None:
        pass


def do_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do the shards in this process, with a stand-in for the network."""

    def shards(run: Run, todo: Shards, given: LabelSettings, _: Any) -> Iterator[Receipt]:
        return label_tasks(run, todo, given)

    monkeypatch.setattr(chain, "label_shards", shards)
    monkeypatch.setattr(chain, "join_cluster", lambda *_: None)
    monkeypatch.setattr(chain, "RunMetrics", _NoMetrics)
    monkeypatch.setattr(chain, "PublishBeside", _NothingBeside)


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    do_without_ray(monkeypatch)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photographs(tmp_path_factory.mktemp("photographs"), _NUM_IMAGES)


@pytest.fixture(scope="module")
def expected(photographs: Path) -> Callable[[Path], dict[str, str]]:
    """Return what gives the hashes of the masks that an undisturbed run writes."""
    found: dict[str, str] = {}

    def hashes(folder: Path) -> dict[str, str]:
        if not found:
            assert label(photographs, folder / "undisturbed") == 0
            found.update(mask_hashes(the_run(f"file://{folder}/undisturbed")))
        return found

    return hashes


def _bucket(server: Server, folder: Path) -> str:
    bucket = server.make_bucket()
    for path in sorted(folder.iterdir()):
        server.put(bucket, f"in/{path.name}", path.read_bytes())
    return bucket


def _holds(
    case: Case, photographs: Path, s3: Server, hashes: dict[str, str], kind: str = "files"
) -> None:
    bucket = _bucket(s3, photographs)
    with fault_proxy(s3.endpoint_url) as proxy:
        command = partial(
            label, f"s3://{bucket}/in", f"s3://{bucket}/out",
            *("--max-shard-images", 4, "--io-threads", 2, "--io-timeout-s", 2),
            *("--lock-lease-s", 5, "--s3-endpoint-url", proxy.endpoint_url, "--masks", kind),
        )  # fmt: skip
        proxy.faults += case.faults()
        assert command(*case.flags) in case.codes
        assert all(fault.struck for fault in proxy.faults), "it never struck"
        if case.lasting:
            proxy.faults.clear()
        assert command() == 0
    _is_whole(bucket, s3, hashes)


def _is_whole(bucket: str, s3: Server, hashes: dict[str, str]) -> None:
    run = the_run(f"s3://{bucket}/out", Storage(s3.endpoint_url))
    assert main(["verify", f"s3://{bucket}/out", "--s3-endpoint-url", s3.endpoint_url]) == 0
    images, _ = tables(run)
    assert [row["status"] for row in images] == ["ok"] * _NUM_IMAGES
    assert mask_hashes(run) == hashes


@pytest.mark.parametrize("name", _TELLING)
def test_no_fault_of_a_store_costs_an_image(
    name: str, photographs: Path, s3: Server, expected: Callable[..., Any], tmp_path: Path
) -> None:
    """A fault ends with the right code, and the same command ends with all masks, undisturbed."""
    _holds(_TELLING[name], photographs, s3, expected(tmp_path))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in _OF_MASKS else pytest.mark.faults)
        for name in (*_TELLING, *_OTHERS)
    ],
)
def test_no_fault_of_a_store_costs_a_mask_of_a_tar(
    name: str, photographs: Path, s3: Server, expected: Callable[..., Any], tmp_path: Path
) -> None:
    """As above, with masks in tars: they are those that files hold."""
    _holds((_TELLING | _OTHERS)[name], photographs, s3, expected(tmp_path), "tar")


@pytest.mark.faults
@pytest.mark.parametrize("name", _OTHERS)
def test_no_rarer_fault_of_a_store_costs_an_image(
    name: str, photographs: Path, s3: Server, expected: Callable[..., Any], tmp_path: Path
) -> None:
    """As above."""
    _holds(_OTHERS[name], photographs, s3, expected(tmp_path))


def test_a_key_too_long_for_its_mask_is_a_row(photographs: Path, s3: Server) -> None:
    """An image whose mask's key would pass 1,024 bytes costs itself a row, and no other image."""
    bucket = _bucket(s3, photographs)
    name = "k" * 1000 + ".jpg"
    s3.put(bucket, f"in/{name[:250]}/{name[250:500]}/{name[500:]}", b"x")
    flags = ("--s3-endpoint-url", s3.endpoint_url)

    assert label(f"s3://{bucket}/in", f"s3://{bucket}/out", *flags) == 4
    assert label(f"s3://{bucket}/in", f"s3://{bucket}/out", *flags) == 4, "nothing was to be done"

    run = the_run(f"s3://{bucket}/out", Storage(s3.endpoint_url))
    codes = [row["error_code"] for row in tables(run)[0]]
    assert (codes.count(None), codes.count("name_too_long")) == (_NUM_IMAGES, 1)
    assert main(["verify", f"s3://{bucket}/out", "--s3-endpoint-url", s3.endpoint_url]) == 0


def test_a_store_without_etags_is_named(
    photographs: Path, s3: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """`plan` says how many images have no ETag, and what stands in its place."""
    bucket = _bucket(s3, photographs)
    with fault_proxy(s3.endpoint_url) as proxy:
        change = _changed("GET", "list-type", _without_etags_in_it)
        proxy.faults += change()
        flags = ("--output", f"s3://{bucket}/out", "--s3-endpoint-url", proxy.endpoint_url)
        assert main(["plan", "--input", f"s3://{bucket}/in", *flags, "--weights", "random:0"]) == 0
    assert "gives 12 images no ETag: time and size stand for it" in caplog.text
