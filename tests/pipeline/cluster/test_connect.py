"""Ray for a job: what is said where it does not come."""

import logging

import pytest
import ray
from ray._private.log import PlainRayHandler
from ray.data._internal.logging import SessionFileHandler

from pipeline.cluster.connect import _quieten, connect
from pipeline.errors import ClusterLost, Stopped


def test_a_ray_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch):
    """Its own bare exception, as for a start that takes too long, becomes exit code 5."""

    def too_slow(**_: object) -> None:
        raise Exception("The current node timed out\nduring startup.")  # noqa: TRY002 - as Ray does

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", too_slow)
    with pytest.raises(ClusterLost, match=r"does not start .*: The current node timed out during"):
        connect(None)
    assert ClusterLost.exit_code == Stopped.exit_code


def test_a_bug_of_ours_is_no_busy_machine(monkeypatch: pytest.MonkeyPatch):
    """What Ray refuses because it was called wrongly is raised as it is: exit code 1."""

    def wrong(**_: object) -> None:
        raise ValueError("unknown setting")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", wrong)
    with pytest.raises(ValueError, match="unknown setting"):
        connect(None)


def test_ray_data_keeps_its_own_log(monkeypatch: pytest.MonkeyPatch):
    """What is kept from the terminal stands in Ray's file, where docs/operations.md looks."""
    file, terminal = SessionFileHandler("ray-data.log"), PlainRayHandler()
    monkeypatch.setattr(logging.getLogger("ray.data"), "handlers", [file, terminal])
    monkeypatch.setattr(logging.getLogger("ray"), "handlers", [])

    _quieten()

    assert file.level == logging.NOTSET
    assert terminal.level == logging.CRITICAL
