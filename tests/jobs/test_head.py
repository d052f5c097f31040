"""A command whose Ray is killed under it, and what a killed command leaves behind."""

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from jobs.__main__ import main
from pipeline.cluster.leftovers import end_leftovers
from tests.product import draw_photographs, label_flags, start, wait_for

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


def test_what_a_killed_command_left_is_ended_by_the_next(tmp_path: Path):
    """Also a replica that hangs, which does not notice that its node is gone."""
    process, command = _labelling(tmp_path)
    family = _family(process)
    [replica, *_] = [one for one in family if "MapWorker" in " ".join(one.cmdline())]
    os.kill(replica.pid, signal.SIGSTOP)
    process.kill()
    process.wait()

    again = start(command, tmp_path / "again")
    try:
        _, alive = psutil.wait_procs(family, timeout=100)
        assert not alive, (tmp_path / "again").read_text()
        assert again.wait(200) == 0, (tmp_path / "again").read_text()
    finally:
        again.kill()
        end_leftovers()
    assert "that a killed command had left" in (tmp_path / "again").read_text()
