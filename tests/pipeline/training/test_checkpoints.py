"""Checkpoints in the background: their order, what waits for what, and failures that are told."""

import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from pipeline.errors import ErrorCode, StoreError
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.run_folder import TrainingRun


@dataclass
class _Slow:
    """A store whose writes wait for a sign, and whose names are kept in their order."""

    go_on: threading.Event = field(default_factory=threading.Event)
    written: list[tuple[str, bytes]] = field(default_factory=list)
    error: StoreError | None = None

    def write(self, uri: str, data: bytes) -> None:
        assert self.go_on.wait(60)
        if self.error is not None:
            raise self.error
        self.written.append((uri.rpartition("/")[2], data))


@pytest.fixture
def store() -> _Slow:
    return _Slow()


@pytest.fixture
def checkpoints(store: _Slow) -> Iterator[Checkpoints]:
    with closing(Checkpoints(TrainingRun(cast("Any", store), "s3://out/run"))) as found:
        yield found
        store.go_on.set()


def test_the_best_weights_go_with_the_checkpoint_and_before_it(
    store: _Slow, checkpoints: Checkpoints
):
    """Metrics, then the best weights, then the checkpoint that names them; weights once."""
    store.go_on.set()
    checkpoints.keep_best(b"older")
    checkpoints.keep_best(b"best")
    checkpoints.write([("s3://out/run/metrics.jsonl", b"1")])
    checkpoints.write([("s3://out/run/metrics.jsonl", b"2")], b"last")
    checkpoints.wait()
    checkpoints.write([], b"next")
    checkpoints.wait()

    assert store.written == [
        *(("metrics.jsonl", b"1"), ("metrics.jsonl", b"2")),
        *(("best.safetensors", b"best"), ("last.safetensors", b"last")),
        ("last.safetensors", b"next"),
    ]


def test_an_evaluation_does_not_wait_for_a_checkpoint(store: _Slow, checkpoints: Checkpoints):
    """While a checkpoint is being written metrics are taken at once; a second checkpoint waits."""
    checkpoints.write([], b"last")
    checkpoints.write([("s3://out/run/metrics.jsonl", b"1")])
    assert store.written == []

    second = threading.Thread(target=checkpoints.write, args=([], b"next"))
    second.start()
    second.join(0.2)
    assert second.is_alive()

    store.go_on.set()
    second.join(60)
    checkpoints.wait()
    assert [data for _, data in store.written] == [b"last", b"1", b"next"]


def test_a_failure_is_told_by_whatever_comes_next(store: _Slow, checkpoints: Checkpoints):
    """What could not be written ends the next writing or waiting, and the best weights are kept."""
    checkpoints.keep_best(b"best")
    store.error = StoreError(ErrorCode.FORBIDDEN, "the store refuses")
    store.go_on.set()
    checkpoints.write([("s3://out/run/metrics.jsonl", b"1")])
    with pytest.raises(StoreError, match="the store refuses"):
        checkpoints.write([], b"last")

    store.error = None
    checkpoints.write([], b"last")
    checkpoints.wait()
    assert store.written[0] == ("best.safetensors", b"best")
