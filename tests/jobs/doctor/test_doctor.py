"""`doctor` finds what would stand in the way, and says what to do."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.__main__ import main
from tests.fault_proxy import Fault, fault_proxy
from tests.product import NETWORK, REPOSITORY, draw_photographs, label_flags
from tests.ray_nodes import Head, ray_head, ray_worker
from tests.servers import Server

pytestmark = pytest.mark.cluster


_SHADOWED = "0.0.1"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photographs(tmp_path_factory.mktemp("photographs"), 8)


def fill(server: Server, photographs: Path) -> str:
    """Return a bucket with photographs."""
    bucket = server.make_bucket()
    for photograph in photographs.iterdir():
        server.put(bucket, f"in/{photograph.name}", photograph.read_bytes())
    return bucket


def flags(server: Server, bucket: str, *more: object) -> list[str]:
    places = ("--input", f"s3://{bucket}/in", "--output", f"s3://{bucket}/out")
    endpoint = ("--s3-endpoint-url", server.endpoint_url)
    return ["doctor", *places, *endpoint, *NETWORK, *map(str, more)]


def findings(shown: str, level: str) -> str:
    """Return the findings of a level, each with its remedy."""
    parts = re.split(r"^(?=ok |note |CHANGE )", shown, flags=re.MULTILINE)
    return "".join(part for part in parts if part.startswith(level))


def test_all_is_well(
    ray_session: str, s3: Server, photographs: Path, capfd: pytest.CaptureFixture[str]
):
    """With everything in place it ends with 0, an estimate and a price, and writes one probe."""
    bucket = fill(s3, photographs)

    assert main(flags(s3, bucket, "--sample", 4, "--price-per-node-hour", 2)) == 0

    shown = capfd.readouterr().out
    well = findings(shown, "ok")
    for words in (
        *("readable: s3://", "writable, with conditional PUT: s3://", "1 node(s), 2 CPU", "GiB"),
        *("pillow", "4 images of", "decoded at", "8 images: about", "per 1,000 images"),
    ):
        assert words in well
    assert not findings(shown, "CHANGE")
    assert "untrained" in findings(shown, "note")
    assert list(s3.objects(bucket, "out/")) == ["out/locks/probe"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--s3-endpoint-url", "http://127.0.0.1:1"),
         ["nobody answers at http://127.0.0.1:1", "check s3_endpoint_url=http://127.0.0.1:1"]),
        (("--gpus-per-replica", 1), ["gpus_per_replica=1", "start a node with a GPU"]),
        (("--input", "s3://no-such-bucket/in"), ["no-such-bucket", "name another, or create it"]),
        (("--cpus-per-replica", 64), ["room for 0 replica(s)", "start more or larger nodes"]),
    ],
)  # fmt: skip
def test_what_must_be_changed_is_named(
    ray_session: str, s3: Server, photographs: Path, capfd: pytest.CaptureFixture[str],
    more: tuple[object, ...], words: list[str],
):  # fmt: skip
    """Each cause ends with 2, and stands in the table with its remedy."""
    bucket = fill(s3, photographs)

    assert main(flags(s3, bucket, *more)) == 2

    found = findings(capfd.readouterr().out, "CHANGE")
    for word in words:
        assert word in found


def test_missing_weights_are_named(
    ray_session: str, s3: Server, photographs: Path, capfd: pytest.CaptureFixture[str]
):
    """Weights that are not there are a finding among the others."""
    bucket = fill(s3, photographs)
    command = flags(s3, bucket)
    del command[command.index("--weights") :]

    assert main([*command, "--weights", f"s3://{bucket}/gone.safetensors"]) == 2

    found = findings(capfd.readouterr().out, "CHANGE")
    assert "gone.json does not exist" in found
    assert "--weights" in found
    assert found.count("CHANGE") == 1


def test_a_read_only_output_is_named(
    ray_session: str, s3: Server, photographs: Path, capfd: pytest.CaptureFixture[str]
):
    """A store that answers 403 to PUT is found out, and said once."""
    bucket = fill(s3, photographs)
    with fault_proxy(s3.endpoint_url) as proxy:
        proxy.faults.append(Fault("PUT", "/out/", "before", lambda: 403, times=1000))
        assert main(flags(Server(proxy.endpoint_url), bucket)) == 2

    found = findings(capfd.readouterr().out, "CHANGE")
    assert "output, the driver" in found
    assert "output, node " not in found
    assert "s3:PutObject" in found
    assert "input" not in found


def test_a_store_without_conditional_put_is_named(
    ray_session: str, naive_s3: Server, photographs: Path, capfd: pytest.CaptureFixture[str]
):
    """A store that ignores If-None-Match is a note: the lock holds writers apart, not commits."""
    bucket = fill(naive_s3, photographs)

    assert main(flags(naive_s3, bucket, "--sample", 0)) == 0

    assert "ignores If-None-Match" in findings(capfd.readouterr().out, "note")


def test_a_wrong_key_is_named(naive_s3: Server, photographs: Path, tmp_path: Path):
    """A key that the store refuses is a matter of credentials, for input and output."""
    bucket = fill(naive_s3, photographs)

    done = doctor(flags(naive_s3, bucket), {**os.environ, "AWS_SECRET_ACCESS_KEY": "wrong"})

    assert done.returncode == 2, done.stderr
    found = findings(done.stdout, "CHANGE")
    for words in ("input", "output, the driver", "check the credentials", "s3:ListBucket"):
        assert words in found


def doctor(command: list[str], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs", *command], cwd=REPOSITORY, env=environ,
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head(dashboard=False) as found:
        yield found


def test_a_node_that_differs_is_named(
    head: Head, naive_s3: Server, photographs: Path, tmp_path: Path
):
    """Of two nodes, the one with another Pillow and a wrong key is named; `label` refuses it."""
    record = tmp_path / f"pillow-{_SHADOWED}.dist-info" / "METADATA"
    record.parent.mkdir()
    record.write_text(f"Metadata-Version: 2.1\nName: pillow\nVersion: {_SHADOWED}\n")
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    bucket = fill(naive_s3, photographs)
    command = [*flags(naive_s3, bucket), "--ray-address", head.address]

    with ray_worker(head, head.environ(PYTHONPATH=path, AWS_SECRET_ACCESS_KEY="wrong")):
        done = doctor(command, head.environ())
        refused = doctor(
            label_flags(photographs, tmp_path / "out", "--ray-address", head.address),
            head.environ(),
        )

    assert done.returncode == 2, done.stderr
    found = findings(done.stdout, "CHANGE")
    assert f"has pillow {_SHADOWED} (here " in found
    assert "let all nodes run the same image" in found
    assert re.search(r"input, node .*\n.*check the credentials", found)
    assert "the driver" not in found
    assert refused.returncode == 2, refused.stderr
    assert f"has pillow {_SHADOWED} (here " in refused.stderr


def test_label_refuses_a_node_without_rights(
    head: Head, naive_s3: Server, photographs: Path, tmp_path: Path
):
    """A node that may not read the input ends `label` with 2 before an image fails there."""
    bucket = fill(naive_s3, photographs)
    places = (f"s3://{bucket}/in", f"s3://{bucket}/out")
    flags = ("--s3-endpoint-url", naive_s3.endpoint_url, "--ray-address", head.address)

    with ray_worker(head, head.environ(AWS_SECRET_ACCESS_KEY="wrong")):
        refused = doctor(label_flags(*places, *flags), head.environ())

    assert refused.returncode == 2, refused.stderr
    assert re.search(r"input, node .* \(127.0.0.\d, .*check the credentials", refused.stderr)
    assert not naive_s3.objects(bucket, "out/images/")
    assert not [key for key in naive_s3.objects(bucket, "out/runs/") if "/commits/" in key]


def test_nobody_waits_for_a_cluster_that_is_not_there(
    s3: Server, photographs: Path, tmp_path: Path
):
    """A wrong ray_address is a finding."""
    started = time.monotonic()
    bucket = fill(s3, photographs)

    done = doctor([*flags(s3, bucket), "--ray-address", "127.0.0.1:1"], dict(os.environ))

    assert done.returncode == 2, done.stderr
    assert "ray_address" in findings(done.stdout, "CHANGE")
    assert time.monotonic() - started < 60
