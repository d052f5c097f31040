"""Work beside a dataset: done in tasks, and what fails is left."""

import logging
from pathlib import Path

import pytest

from pipeline.cluster.beside import Beside
from pipeline.errors import ErrorCode, StoreError


class _Touch:
    """Makes a file of a name, but for one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, name: str) -> None:
        if name == "bad":
            raise StoreError(ErrorCode.TIMEOUT, "no answer")
        (self._folder / name).touch()


def test_what_is_added_is_done_and_what_fails_is_said(
    ray_session: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All items are worked on, also after one that fails, of which the log tells."""
    with caplog.at_level(logging.WARNING):
        beside = Beside("touching", _Touch(tmp_path))
        beside.add(["a", "bad"])
        beside.go_on()
        beside.add(["b"])
        beside.finish(60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    assert [record.getMessage() for record in caplog.records] == [
        "touching: no answer; it is done again at the end"
    ]


class _Sleep:
    def __call__(self, seconds: float) -> None:
        import time  # noqa: PLC0415 - in a task

        time.sleep(seconds)


def test_work_that_does_not_get_on_is_given_up(
    ray_session: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no task ends for as long as one is patient, nobody waits for the rest."""
    beside = Beside("sleeping", _Sleep())
    beside.add([30.0, 30.0])
    beside.finish(0.2)
    assert "sleeping: no task has ended for 0 s" in caplog.text
