"""Progress: what a person sees of a run that is under way."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipeline.labelling import progress, within_shards
from pipeline.labelling.progress import Progress
from pipeline.labelling.schema import Receipt
from pipeline.labelling.segment import Placement
from pipeline.labelling.watch import Watch
from pipeline.labelling.within_shards import telling

_log = logging.getLogger("test")


class _Messages:
    """What replicas have told."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def __call__(self) -> Iterator[dict[str, Any]]:
        while self.sent:
            yield self.sent.pop(0)


def _receipt(number: int) -> Receipt:
    return Receipt(shard=0, num_images=number, num_failed=1)  # type: ignore[typeddict-item]  # what is counted


def _wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LOOK_S", 0.01)
    monkeypatch.setattr(within_shards, "_INTERVAL_S", 0.01)


def test_a_bar_moves_within_a_shard_and_stands_below_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is labelled moves it, what is committed ends it, and lines of the log have their own."""
    monkeypatch.setattr(progress, "has_terminal", lambda: True)
    messages, shown = _Messages(), ""

    def seen(text: str) -> bool:
        nonlocal shown
        shown += capsys.readouterr().err
        return text in shown

    handler = logging.StreamHandler(sys.stderr)
    logging.getLogger().addHandler(handler)
    try:
        bar = Progress(30, 10, 60.0)
        bar.follow(messages)
        with bar:
            messages.sent.append({"num_images": 7})
            _wait_until(lambda: seen("17/30"))
            # A shard that was begun twice counts no more images than there are.
            messages.sent.append({"num_images": 100})
            _wait_until(lambda: seen("30/30"))
            _log.warning("a line")
            bar.add(_receipt(15))
    finally:
        logging.getLogger().removeHandler(handler)
    shown += capsys.readouterr().err
    assert "\ra line\n" in shown
    assert shown.rstrip("\n").rpartition("\r")[2].startswith(" 83%")
    assert "25/30" in shown.rpartition("\r")[2]


def test_a_place_of_messages_that_is_gone_ends_no_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where Ray has died, the bar goes on with what is committed, and nobody sees a traceback."""
    monkeypatch.setattr(progress, "has_terminal", lambda: True)

    def fail() -> Iterator[dict[str, Any]]:
        raise ConnectionError("Ray is gone")

    bar = Progress(30, 0, 60.0)
    bar.follow(fail)
    with bar:
        time.sleep(0.1)
        bar.add(_receipt(30))
    shown = capsys.readouterr().err
    assert "30/30" in shown
    assert "Traceback" not in shown


class _Predictor:
    num_images = 0


def test_a_replica_tells_what_it_has_labelled_until_nobody_listens() -> None:
    """Only what is new, and nothing if nobody asked."""
    predictor, told = _Predictor(), list[int]()

    def send(message: dict[str, Any]) -> None:
        told.append(message["num_images"])
        if len(told) == 2:
            raise ConnectionError("the driver is gone")

    def load(_: Placement) -> Any:
        return predictor

    assert telling(load, None) is load
    assert telling(load, send)(Placement(use_gpu=False, threads=1, batch_size=1)) is predictor
    for number in (3, 8, 9):
        predictor.num_images = number
        _wait_until(lambda number=number: len(told) == min(2, (3, 8, 9).index(number) + 1))
    time.sleep(0.1)
    assert told == [3, 5]


def test_nobody_is_asked_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log gets lines of what is committed; no place for messages is opened."""
    monkeypatch.setattr("pipeline.labelling.watch.has_terminal", lambda: False)
    watch = Watch(lambda: Progress(1, 0, 60.0), [], None)  # type: ignore[arg-type]  # is not used
    assert watch.listen(lambda: pytest.fail("opened")) is None


def test_the_speed_that_is_said_is_that_of_the_last_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However long a report takes: terminal and log have one number, and say what is in it."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress, "has_terminal", lambda: False)
    with Progress(8, 0, 60.0) as shown:
        shown.add(_receipt(8))
        time.sleep(0.2)
    time.sleep(0.2)

    words = f"8 of 8 images, {shown.images_per_s:.1f} images/s (loading of the network included)"
    assert words in caplog.text
