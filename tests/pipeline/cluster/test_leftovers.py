"""Leftovers: what a killed command leaves is ended, and nothing else is."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.cluster.leftovers import (
    end_leftovers,
    end_mine,
    mark_session,
    marked_as_mine,
    whose_session,
)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Return what starts processes that sleep, and ends them after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def sleep(**environ: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sleep", "600"], env={**os.environ, **environ}))
        return started[-1]

    yield sleep
    for process in started:
        process.kill()
        process.wait()


def test_what_a_dead_command_has_left_is_ended(start: Callable[..., subprocess.Popen[bytes]]):
    """Its number may be another process's by now; those of the living and of others stay."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    with marked_as_mine():
        mine = start()
    here = re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))
    marks = (f"{gone.pid}:1:{here}", f"{os.getpid()}:1:{here}")
    left = [start(_FCN_PIPELINE_COMMAND=mark) for mark in marks]
    elsewhere = (f"{gone.pid}:1:1{here}", "what is this?")
    others = [start(), *(start(_FCN_PIPELINE_COMMAND=mark) for mark in elsewhere)]

    end_leftovers()

    assert [process.wait(30) for process in left] == [-9, -9]
    assert [process.poll() for process in (mine, *others)] == [None] * 4


def test_a_process_is_known_by_what_it_logs_to(tmp_path: Path):
    """Ray's agents give themselves a name that hides their environment."""
    (tmp_path / "logs").mkdir()
    mark_session(str(tmp_path))
    with (
        (tmp_path / "logs" / "agent.err").open("wb") as log,
        subprocess.Popen(["sleep", "600"], stderr=log) as agent,
    ):
        end_leftovers()
        assert agent.poll() is None
        end_mine()
        assert agent.wait(30) == -9


def test_a_session_says_whose_it_is(tmp_path: Path):
    """Of a Ray that a command started for itself it names the process; a cluster's has no mark."""
    assert whose_session(str(tmp_path)) is None
    mark_session(str(tmp_path))
    assert whose_session(str(tmp_path)) == os.getpid()


def test_who_reads_a_log_of_the_dead_is_left_alone(tmp_path: Path):
    """A log that is open for reading makes nobody a process of Ray."""
    (tmp_path / "logs").mkdir()
    mark_session(str(tmp_path))
    log = tmp_path / "logs" / "raylet.out"
    log.write_bytes(b"a line")
    with subprocess.Popen(["tail", "-f", str(log)], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        reader.stdout.read(1)
        end_mine()
        assert reader.poll() is None
        reader.kill()


def test_a_command_that_leaves_ends_its_own(start: Callable[..., subprocess.Popen[bytes]]):
    """Only what was started for it; the mark does not stay in its own environment."""
    with marked_as_mine():
        mine = start()
    other = start()

    end_mine()

    assert mine.wait(30) == -9
    assert other.poll() is None
