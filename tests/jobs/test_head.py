"""A command that Ray or the store leave alone, and what a killed command leaves behind."""

import os
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from jobs.__main__ import main
from pipeline.cluster.leftovers import end_leftovers
from tests.fault_proxy import Gate, fault_proxy
from tests.product import draw_photographs, label_flags, start, wait_for
from tests.servers import Server

pytestmark = pytest.mark.cluster
_FLAGS = ("--max-shard-images", 4, "--lock-lease-s", 2)


def _labelling(tmp_path: Path) -> tuple[subprocess.Popen[bytes], list[str]]:
    """Start a command with a Ray of its own, and wait for its first commit."""
    folder = draw_photographs(tmp_path / "in", 120, (200, 300))
    command = label_flags(folder, tmp_path / "out", *_FLAGS)
    process = start(command, tmp_path / "log")
    log = tmp_path / "log"
    wait_for(lambda: any(tmp_path.glob("out/runs/*/commits/*")), process, log)
    return process, command


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_without_ray_s_head_a_command_ends_with_5(tmp_path: Path):
    """It says what is gone; the same command finishes the run."""
    process, command = _labelling(tmp_path)
    [head] = [one for one in _family(process) if one.name() == "gcs_server"]
    head.kill()

    assert process.wait(120) == 5, (tmp_path / "log").read_text()
    log = (tmp_path / "log").read_text()
    assert "does not answer any more; has it been killed?; run the same command again" in log

    assert start(command, tmp_path / "again").wait(200) == 0, (tmp_path / "again").read_text()
    assert main(["verify", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_without_its_raylet_a_command_ends_with_5(number: signal.Signals, tmp_path: Path):
    """Also where the raylet ends in order, as by `ray stop`, and Ray ends its drivers at once."""
    process, command = _labelling(tmp_path)
    [raylet] = [one for one in _family(process) if one.name() == "raylet"]
    raylet.send_signal(number)

    assert process.wait(60) == 5, (tmp_path / "log").read_text()
    assert "run the same command again" in (tmp_path / "log").read_text()

    try:
        assert start(command, tmp_path / "again").wait(200) == 0, (tmp_path / "again").read_text()
        assert main(["verify", str(tmp_path / "out")]) == 0
    finally:
        end_leftovers()


def test_what_a_killed_command_left_is_ended_by_the_next(tmp_path: Path):
    """A replica that hangs does not notice that raylet and command are gone."""
    process, command = _labelling(tmp_path)
    family = _family(process)
    [replica, *_] = [one for one in family if "MapWorker" in " ".join(one.cmdline())]
    [raylet] = [one for one in family if one.name() == "raylet"]
    os.kill(replica.pid, signal.SIGSTOP)
    for one in (raylet, process):
        one.kill()
    process.wait()

    again = start(command, tmp_path / "again")
    try:
        _, alive = psutil.wait_procs(family, timeout=100)
        assert not alive, (tmp_path / "again").read_text()
        assert again.wait(200) == 0, (tmp_path / "again").read_text()
    finally:
        again.kill()
        end_leftovers()


def test_a_stop_does_not_wait_for_a_store_that_is_gone(s3: Server, tmp_path: Path):
    """SIGTERM amid a partition ends the command with 5, in its grace time, with all of its Ray."""
    bucket = s3.make_bucket()
    for photograph in draw_photographs(tmp_path / "in", 120, (200, 300)).iterdir():
        s3.put(bucket, f"in/{photograph.name}", photograph.read_bytes())
    places = (f"s3://{bucket}/in", f"s3://{bucket}/out")
    log = tmp_path / "log"
    with fault_proxy(s3.endpoint_url) as proxy:
        flags = (*_FLAGS, "--s3-endpoint-url", proxy.endpoint_url)
        process = start(label_flags(*places, *flags), log)
        wait_for(lambda: any("/commits/shard" in path for _, path in proxy.requests), process, log)
        family = _family(process)
        with ExitStack() as gates:
            for method in ("GET", "PUT", "HEAD"):
                gates.enter_context(Gate(proxy, method, ".", 0))
            process.terminate()
            assert process.wait(60) == 5, log.read_text()
            _, alive = psutil.wait_procs(family, timeout=30)
            assert not alive
