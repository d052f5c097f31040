"""What `plan` says of requests is what a bucket is asked for."""

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from jobs.__main__ import main
from pipeline.labelling.draft import Draft, draft
from pipeline.labelling.history import History
from pipeline.labelling.plan import start_run
from pipeline.labelling.publish import publish
from pipeline.labelling.request_costs import Requests, finding, in_reads, labelling, verifying
from pipeline.settings.label import LabelSettings
from pipeline.store.storage import Storage
from tests.disk_runs import encode, label_run, network_record, random_pixels
from tests.fault_proxy import Proxy, fault_proxy
from tests.servers import Server
from tests.tar_writer import tar_of

_PER_SHARD = 4


def _requests(proxy: Proxy) -> Requests:
    """Count; but for the plan, a file of which the flow reads once and these steps per shard."""
    writes = Counter(
        method == "PUT" or "list-type" in path
        for method, path in proxy.requests
        if "/plan/" not in path
    )
    proxy.requests.clear()
    return Requests(writes[True], writes[False])


def _image(seed: int) -> bytes:
    return encode(Image.fromarray(random_pixels(seed, 4, 5, 3)), "PNG")


def _label(bucket: str, kind: str, endpoint_url: str) -> Draft:
    """Label in shards of four, and publish."""
    settings = LabelSettings(
        input=f"{bucket}/in", output=f"{bucket}/out", weights="random:0", masks=kind,
        max_shard_images=_PER_SHARD, s3_endpoint_url=endpoint_url, input_form="tar",
    )  # fmt: skip
    network, history = network_record(), History(settings.storage(), settings.output)
    drafted = draft(history, settings, network)
    run = start_run(settings.storage(), settings, network, drafted)
    label_run(run)
    publish(run, str)
    return drafted


def _counted(s3: Server, number: int, kind: str) -> tuple[Requests, Requests]:
    """Label images and verify the run; count the requests of both."""
    bucket = s3.make_bucket()
    for index in range(number):
        s3.put(bucket, f"in/{index}.png", _image(index))
    with fault_proxy(s3.endpoint_url) as proxy:
        _label(f"s3://{bucket}", kind, proxy.endpoint_url)
        labelled = _requests(proxy)
        flags = ["--s3-endpoint-url", proxy.endpoint_url]
        assert main(["verify", f"s3://{bucket}/out", *flags]) == 0
        return labelled, _requests(proxy)


@pytest.mark.parametrize("kind", ["files", "tar"])
def test_requests_are_as_reckoned(kind: str, s3: Server) -> None:
    """Twice the images in twice the shards cost as many requests more as is reckoned.

    The marks of replicas are no part of the steps that run here: one write for each shard.
    """
    in_tars = kind == "tar"
    few, many = (_counted(s3, number, kind) for number in (8, 16))
    # All are on one page of the listing.
    for reckon, marks, less, more in zip((labelling, verifying), (2, 0), few, many, strict=True):
        fewer, others = (reckon(n, n // _PER_SHARD, in_tars=in_tars) for n in (8, 16))
        assert more.reads - less.reads == others.reads - fewer.reads
        assert more.writes - less.writes == others.writes - fewer.writes - marks


def _counted_in_tars(s3: Server, number: int) -> tuple[Requests, Requests]:
    """Label images in tars of four; count the requests, and reckon them."""
    bucket = s3.make_bucket()
    for first in range(0, number, _PER_SHARD):
        members = [(f"{first + index}.png", _image(first + index)) for index in range(_PER_SHARD)]
        s3.put(bucket, f"in/{first}.tar", tar_of(members))
    with fault_proxy(s3.endpoint_url) as proxy:
        drafted = _label(f"s3://{bucket}", "files", proxy.endpoint_url)
        num_shards = number // _PER_SHARD
        num_reads = in_reads(drafted.num_bytes, num_shards)
        reckoned = labelling(number, num_shards, in_tars=False, num_reads=num_reads)
        return _requests(proxy), reckoned + Requests(0, drafted.num_header_reads)


def test_images_in_tars_cost_as_reckoned(s3: Server) -> None:
    """Twice the tars cost a request more each for their headers, and one for their images."""
    (less, fewer), (more, others) = (_counted_in_tars(s3, number) for number in (8, 16))
    assert more.reads - less.reads == others.reads - fewer.reads == 8
    assert more.writes - less.writes == others.writes - fewer.writes - 2


def test_a_million_masks_cost_less_in_tars() -> None:
    """At S3's prices and 256 images per shard."""
    found = finding(LabelSettings(input="s3://b", output="s3://b/out", weights="random:0"), 10**6)
    files, tars = (
        (found + labelling(10**6, 3907, in_tars=in_tars)).dollars for in_tars in (False, True)
    )
    assert (round(files, 2), round(tars, 2)) == (5.45, 0.47)
    checks = [verifying(10**6, 3907, in_tars=in_tars).dollars for in_tars in (False, True)]
    assert [round(one, 3) for one in checks] == [0.402, 0.003]


@pytest.mark.parametrize(
    ("place", "trusted", "expected"),
    [
        ("s3://b/photos", False, Requests(100_000, 0)),
        ("s3://b/list.parquet", False, Requests(0, 10**8)),
        ("s3://b/list.parquet", True, Requests(0, 0)),
        ("s3://b/inventory/manifest.json", False, Requests(0, 0)),
    ],
)
def test_finding_the_images_has_its_price(place: str, trusted: bool, expected: Requests) -> None:  # noqa: FBT001 - a case
    """A listing costs a page per 1,000 images, a manifest a look at each unless it is trusted."""
    settings = LabelSettings(
        input=place, output="s3://b/out", weights="random:0", trust_manifest=trusted
    )
    assert finding(settings, 10**8) == expected


def test_plan_says_what_both_cost(
    s3: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For an output in a bucket both kinds are named; a disk has no price."""
    Storage().write(f"file://{tmp_path}/in/a.png", _image(0))
    arguments = ["plan", "--input", str(tmp_path / "in"), "--weights", "random:0"]
    bucket = ["--output", f"s3://{s3.make_bucket()}/out", "--s3-endpoint-url", s3.endpoint_url]
    assert main([*arguments, *bucket]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if line.startswith("masks ")] == [
        "masks as files   4 writes, 3 reads: $0.00 at S3's prices; verify $0.00",
        "masks in tars    4 writes, 3 reads: $0.00 at S3's prices; verify $0.00",
    ]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    assert "masks in tars" not in capsys.readouterr().out
