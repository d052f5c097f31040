"""`label` on one Ray: the promises, on local disks and on real S3 servers."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from jobs.__main__ import main
from pipeline.labelling import chain
from pipeline.store.storage import Storage
from tests.fault_proxy import Fault, fault_proxy
from tests.product import (
    REPOSITORY,
    draw_photographs,
    label,
    label_flags,
    mask_hashes,
    snapshot,
    start,
    tables,
    the_run,
)
from tests.servers import Server

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photographs(tmp_path_factory.mktemp("photographs"), 12)


@pytest.fixture(scope="module")
def labelled(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an output that one undisturbed run has made, in shards of 4."""
    output = tmp_path_factory.mktemp("labelled")
    assert label(photographs, output, "--max-shard-images", 4) == 0
    return output


def upload(server: Server, folder: Path) -> str:
    bucket = server.make_bucket()
    for path in sorted(folder.rglob("*.*")):
        server.put(bucket, f"in/{path.relative_to(folder)}", path.read_bytes())
    return bucket


@pytest.mark.parametrize("place", ["input", "output", "weights"])
def test_a_store_that_nobody_hears_from_is_5(
    place: str, photographs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Where nobody listens at the endpoint, which is named, the command is to be run again."""
    places = {"input": photographs, "output": tmp_path / "out", "weights": "random:0"}
    places[place] = f"s3://nowhere/{place}.safetensors"
    flags = [word for name, value in places.items() for word in (f"--{name}", str(value))]

    endpoint = ("--s3-endpoint-url", "http://127.0.0.1:1", "--io-attempts", "1")
    assert main(["label", *flags, *endpoint]) == 5

    assert "nobody answers at http://127.0.0.1:1 (check s3_endpoint_url" in caplog.messages[-1]
    assert caplog.messages[-1].endswith("run the same command again to resume")


def test_every_image_has_a_row_and_a_mask(labelled: Path):
    """A run ends with a row and a mask per image, and verify finds nothing broken."""
    run = the_run(f"file://{labelled}")

    images, statistics = tables(run)

    assert [row["status"] for row in images] == ["ok"] * 12
    assert len(mask_hashes(run)) == 12
    assert len(set(mask_hashes(run).values())) == 12
    assert sum(row["pixel_count"] for row in statistics) == 12 * 40 * 60
    assert main(["verify", str(labelled)]) == 0


def test_the_files_of_a_run_are_exactly_these(labelled: Path):
    """A run leaves the files that the documentation names, and no others."""
    run_id = the_run(f"file://{labelled}").run_id
    files = {
        str(path.relative_to(labelled)).replace(run_id, "RUN")
        for path in labelled.rglob("*")
        if path.is_file()
    }
    plan = {name for name in files if name.startswith("runs/RUN/plan/part-00000-")}
    locks = {name for name in files if name.startswith("locks/") and name != "locks/probe"}

    assert len(plan) == 1
    assert len(locks) == 1
    assert files - plan - locks == {
        *(f"masks/run=RUN/photo_{index:03d}.png" for index in range(12)),
        *(f"runs/RUN/commits/shard-{shard:06d}.parquet" for shard in range(3)),
        *(f"runs/RUN/marks/{shard:06d}-00.json" for shard in range(3)),
        "runs/RUN/run.json",
        "runs/RUN/sections/00000.json",
        "runs/RUN/manifest.json",
        "runs/RUN/report.html",
        "runs/RUN/_SUCCESS",
        "images/run=RUN/part-00000.parquet",
        "class_statistics/run=RUN/part-00000.parquet",
        "locks/probe",
    }


def test_the_same_command_again_changes_nothing(labelled: Path, photographs: Path):
    """A second call exits 0 and neither writes nor rewrites a file."""
    before = snapshot(labelled)

    assert label(photographs, labelled, "--max-shard-images", 4) == 0

    assert snapshot(labelled) == before


@pytest.mark.runs
def test_only_new_and_changed_images_are_labelled(tmp_path: Path):
    """After one photograph was added and one overwritten, a new run labels these two."""
    folder, output = draw_photographs(tmp_path / "in", 5), tmp_path / "out"
    assert label(folder, output) == 0
    first = the_run(f"file://{output}")
    before = mask_hashes(first)
    (folder / "photo_001.jpg").write_bytes((folder / "photo_004.jpg").read_bytes())
    (folder / "photo_new.jpg").write_bytes((folder / "photo_000.jpg").read_bytes())

    assert label(folder, output) == 0

    second = the_run(f"file://{output}")
    images, _ = tables(second)
    assert [row["key"] for row in images] == ["photo_001.jpg", "photo_new.jpg"]
    assert second.record.num_skipped == 4
    assert mask_hashes(first) == before
    assert main(["verify", str(output)]) == 0


@pytest.mark.runs
def test_a_named_run_is_idempotent(tmp_path: Path):
    """With --run-id the finished run stays as it is, also when photographs have come since."""
    folder, output = draw_photographs(tmp_path / "in", 3), tmp_path / "out"
    assert label(folder, output, "--run-id", "2026-11-22") == 0
    draw_photographs(folder, 4)
    before = snapshot(output)

    assert label(folder, output, "--run-id", "2026-11-22") == 0
    assert snapshot(output) == before
    assert label(folder, output, "--run-id", "2026-11-23") == 0

    # Drawing wrote the first three again, so that their version is another.
    assert the_run(f"file://{output}").run_id == "2026-11-23"


def test_a_named_run_with_nothing_new_exists_afterwards(labelled: Path, photographs: Path):
    """A scheduler finds _SUCCESS under the run id that it gave, also when nothing was new."""
    assert label(photographs, labelled, "--run-id", "nothing-new") == 0

    run = the_run(f"file://{labelled}")
    manifest = run.manifest()
    assert manifest is not None
    assert (run.run_id, run.finished()) == ("nothing-new", True)
    assert (manifest.num_images, manifest.num_skipped) == (0, 12)
    assert main(["verify", str(labelled)]) == 0


@pytest.mark.runs
def test_a_run_may_take_several_datasets(
    photographs: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A run of more shards than a dataset of Ray gets is labelled in parts, to the same masks."""
    monkeypatch.setattr(chain, "_SHARDS_PER_DATASET", 2)

    assert label(photographs, tmp_path, "--max-shard-images", 4) == 0

    run = the_run(f"file://{tmp_path}")
    assert mask_hashes(run) == mask_hashes(the_run_named_first(labelled))
    assert main(["verify", str(tmp_path)]) == 0


def test_another_network_is_refused_under_the_same_name(tmp_path: Path):
    """A run resumed with other weights ends with 6 and changes nothing."""
    folder, output = draw_photographs(tmp_path / "in", 2), tmp_path / "out"
    assert label(folder, output, "--run-id", "nightly") == 0
    before = snapshot(output)

    assert label(folder, output, "--run-id", "nightly", "--precision", "bf16") == 6

    assert snapshot(output) == before


@pytest.mark.runs
def test_bucket_and_disk_give_the_same(labelled: Path, photographs: Path, s3: Server):
    """Through an S3 server that honours If-None-Match the masks are those of the disk."""
    bucket = upload(s3, photographs)
    flags = ("--max-shard-images", 4, "--s3-endpoint-url", s3.endpoint_url)

    assert label(f"s3://{bucket}/in", f"s3://{bucket}/out", *flags) == 0

    run = the_run(f"s3://{bucket}/out", Storage(s3.endpoint_url))
    assert mask_hashes(run) == mask_hashes(the_run_named_first(labelled))
    before = s3.objects(bucket)
    assert label(f"s3://{bucket}/in", f"s3://{bucket}/out", *flags) == 0
    assert s3.objects(bucket) == before
    assert main(["verify", f"s3://{bucket}/out", "--s3-endpoint-url", s3.endpoint_url]) == 0


def the_run_named_first(output: Path):
    from pipeline.labelling.history import History  # noqa: PLC0415 - beside the_run, which gives the last

    return History(Storage(), f"file://{output}").runs()[0]


def test_a_store_that_ignores_the_header_is_named_and_used(
    photographs: Path, naive_s3: Server, caplog: pytest.LogCaptureFixture
):
    """Where put-if-absent does not work the run says so loudly and still keeps its promises."""
    bucket = upload(naive_s3, photographs)
    flags = ("--s3-endpoint-url", naive_s3.endpoint_url, "--lock-lease-s", 3)

    assert label(f"s3://{bucket}/in", f"s3://{bucket}/out", *flags) == 0

    assert "IGNORES If-None-Match" in caplog.text
    assert main(["verify", f"s3://{bucket}/out", "--s3-endpoint-url", naive_s3.endpoint_url]) == 0


def test_lost_answers_and_throttling_lose_nothing(photographs: Path, s3: Server):
    """Commits whose answers are lost, and a store that says slow down, leave a whole output."""
    bucket = upload(s3, photographs)
    with fault_proxy(s3.endpoint_url) as proxy:
        proxy.faults += [
            Fault("PUT", r"/commits/", "after", lambda: None, times=2),
            Fault("PUT", r"/masks/", "after", lambda: None, times=2),
            Fault("PUT", r"/manifest.json", "after", lambda: None, times=1),
            Fault("PUT", r"/masks/", "before", lambda: 503, times=3),
            Fault("GET", r"/in/photo", "before", lambda: 500, times=3),
        ]
        flags = ("--max-shard-images", 4, "--s3-endpoint-url", proxy.endpoint_url)

        assert label(f"s3://{bucket}/in", f"s3://{bucket}/out", *flags) == 0

        assert [fault.struck for fault in proxy.faults] == [2, 2, 1, 3, 3]
    assert main(["verify", f"s3://{bucket}/out", "--s3-endpoint-url", s3.endpoint_url]) == 0


@pytest.mark.runs
def test_a_store_that_stays_away_ends_with_5(photographs: Path, s3: Server):
    """When masks can't be written the run ends with 5, and the same command finishes it."""
    bucket = upload(s3, photographs)
    with fault_proxy(s3.endpoint_url) as proxy:
        proxy.faults.append(Fault("PUT", r"/masks/", "before", lambda: 503, times=10_000))
        flags = ("--s3-endpoint-url", proxy.endpoint_url, "--io-attempts", 2)
        assert label(f"s3://{bucket}/in", f"s3://{bucket}/out", *flags) == 5
        proxy.faults.clear()

        assert label(f"s3://{bucket}/in", f"s3://{bucket}/out", *flags) == 0

    assert main(["verify", f"s3://{bucket}/out", "--s3-endpoint-url", s3.endpoint_url]) == 0


@pytest.mark.runs
def test_failed_images_are_taken_up_again(photographs: Path, s3: Server):
    """The next run labels the images whose failure was transient, unless it is told not to."""
    bucket = upload(s3, photographs)
    places = (f"s3://{bucket}/in", f"s3://{bucket}/out")
    with fault_proxy(s3.endpoint_url) as proxy:
        proxy.faults.append(Fault("GET", r"photo_00[12]", "before", lambda: 403, times=100))
        flags = ("--s3-endpoint-url", proxy.endpoint_url, "--io-attempts", 2)
        assert label(*places, *flags) == 4
        none = ("--retry-failed", "none")
        assert label(*places, *flags, *none) == 4, "nothing was done, and two have no mask"
        proxy.faults.clear()

        assert label(*places, *flags) == 0

    run = the_run(places[1], Storage(s3.endpoint_url))
    rows = tables(run)[0]
    assert [(row["key"], row["attempts"]) for row in rows] == [
        ("photo_001.jpg", 2),
        ("photo_002.jpg", 2),
    ]
    assert label(*places, "--s3-endpoint-url", s3.endpoint_url) == 0


@pytest.mark.runs
def test_an_image_changed_or_deleted_after_the_plan_is_a_row(photographs: Path, s3: Server):
    """What the plan names is what is labelled: another version or none is an error row."""
    bucket = upload(s3, photographs)
    place = f"s3://{bucket}/out"

    def meddle() -> None:
        s3.put(bucket, "in/photo_000.jpg", (photographs / "photo_001.jpg").read_bytes())
        s3.client().delete_object(Bucket=bucket, Key="in/photo_001.jpg")

    with fault_proxy(s3.endpoint_url) as proxy:
        proxy.faults.append(Fault("PUT", r"/run.json", "after", meddle))
        flags = ("--s3-endpoint-url", proxy.endpoint_url, "--max-error-rate", 0.5)
        # The answer to run.json is lost too, which its own bytes settle.
        assert label(f"s3://{bucket}/in", place, *flags) == 0

    images, _ = tables(the_run(place, Storage(s3.endpoint_url)))
    assert [row["error_code"] for row in images[:3]] == ["changed", "not_found", None]


@pytest.mark.runs
def test_a_killed_replica_does_not_end_the_run(tmp_path: Path):
    """SIGKILL to the process of the replica costs a restart, not the run."""
    folder, output = draw_photographs(tmp_path / "in", 60, (200, 300)), tmp_path / "out"
    killed: list[int] = []

    def kill_a_replica() -> None:
        for _ in range(600):
            time.sleep(0.05)
            if not list(output.glob("runs/*/commits/*")):
                continue
            for process in psutil.Process().children(recursive=True):
                # Ray names a process after what it is at; the replica's is an actor of Ray Data.
                if "MapWorker" in process.name() or "Segmenter" in process.name():
                    process.kill()
                    killed.append(process.pid)
                    return

    thread = threading.Thread(target=kill_a_replica)
    thread.start()
    code = label(folder, output, "--max-shard-images", 4)
    thread.join()

    assert killed, "no replica was found to kill"
    assert code == 0
    assert main(["verify", str(output)]) == 0


@pytest.mark.runs
@pytest.mark.parametrize("kind", ["files", pytest.param("tar", marks=pytest.mark.faults)])
def test_two_at_once_do_the_work_once(tmp_path: Path, ray_session: str, kind: str):
    """Of the same command started twice one finishes the run; the other ends with 7 or 0."""
    folder, output = draw_photographs(tmp_path / "in", 24), tmp_path / "out"
    flags = label_flags(folder, output, "--max-shard-images", 2, "--ray-address", ray_session,
                        "--lock-lease-s", 5, "--masks", kind)  # fmt: skip
    both = [start(flags, tmp_path / f"log{index}") for index in range(2)]

    codes = sorted(process.wait(200) for process in both)

    logs = "\n".join((tmp_path / f"log{index}").read_text() for index in range(2))
    assert codes in ([0, 0], [0, 7]), logs
    assert len(list((output / "runs").iterdir())) == 1
    assert main(["verify", str(output)]) == 0


@pytest.mark.runs
def test_sigterm_ends_in_order_and_can_be_continued(tmp_path: Path, ray_session: str):
    """SIGTERM ends the command with 5 within seconds; the same command finishes the run."""
    folder, output = draw_photographs(tmp_path / "in", 80, (200, 300)), tmp_path / "out"
    flags = label_flags(folder, output, "--max-shard-images", 4, "--ray-address", ray_session)
    process = start(flags, tmp_path / "log")
    deadline = time.monotonic() + 100
    while not list(output.glob("runs/*/commits/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)

    assert process.wait(60) == 5, (tmp_path / "log").read_text()
    assert "run the same command again" in (tmp_path / "log").read_text()
    committed = len(list(output.glob("runs/*/commits/*")))
    assert 0 < committed < 20
    # The lock was released: nothing has to be waited for.
    assert label(folder, output, "--max-shard-images", 4, "--lock-lease-s", 1000) == 0
    assert len(list((output / "runs").iterdir())) == 1
    assert main(["verify", str(output)]) == 0


@pytest.mark.runs
def test_a_text_log_is_lines_of_ours(photographs: Path, tmp_path: Path):
    """Nothing of Ray's is among them, and stdout is the result alone."""
    command = label_flags(photographs, tmp_path / "out")
    ended = subprocess.run(
        [sys.executable, "-m", "jobs", *command],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0
    ours = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING) ")
    assert [line for line in ended.stderr.splitlines() if not ours.match(line)] == []
    assert ended.stdout.startswith("Run ")
