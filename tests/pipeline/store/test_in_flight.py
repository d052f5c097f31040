"""Requests in flight: so many, in order, and no more than are taken."""

import threading
from collections.abc import Iterator

import pytest

from pipeline.store.in_flight import answers_of, parts_of


def test_answers_come_in_order_and_no_batch_is_waited_for() -> None:
    """While the first request hangs, the next ones are answered; and then all come in order."""
    first, others = threading.Event(), threading.Semaphore(0)

    def ask(number: int) -> int:
        if number == 0:
            assert first.wait(30)
        else:
            others.release()
        return number

    answers = answers_of(ask, range(6), 4)
    threading.Timer(0, lambda: others.acquire() and others.acquire() and first.set()).start()

    assert list(answers) == list(range(6))


def test_no_more_are_asked_for_than_may_be_held() -> None:
    """Who takes no more answers lets no further request be made."""
    asked: list[int] = []

    answers = answers_of(lambda number: asked.append(number) or number, range(100), 4)
    assert [next(answers), next(answers)] == [0, 1]
    answers.close()

    assert len(asked) <= 5


def test_an_error_is_raised_in_its_place() -> None:
    """What came before a request that failed is answered."""

    def ask(number: int) -> int:
        if number == 2:
            raise KeyError(number)
        return number

    answers = answers_of(ask, range(9), 3)

    assert [next(answers), next(answers)] == [0, 1]
    with pytest.raises(KeyError):
        next(answers)


def _numbered(stream: int, number: int) -> Iterator[tuple[int, int]]:
    yield from ((stream, part) for part in range(number))


def test_parts_of_a_stream_come_in_order_and_all_of_them() -> None:
    """Streams of any length, none among them, give each part once, in the order of the stream."""
    lengths = [3, 0, 1, 7, 2, 0]
    found = list(parts_of((_numbered(at, number) for at, number in enumerate(lengths)), 2))

    for at, number in enumerate(lengths):
        assert [part for part in found if part[0] == at] == list(_numbered(at, number))
    assert len(found) == sum(lengths)


def test_streams_are_under_way_at_a_time_and_no_more() -> None:
    """As many streams as may be are asked at once; of each no part is made before one is taken."""
    together, made = threading.Barrier(3), list[int]()

    def stream(at: int) -> Iterator[int]:
        together.wait(30)
        for part in range(50):
            made.append(part)
            yield at

    begun: list[int] = []
    parts = parts_of((begun.append(at) or stream(at) for at in range(30)), 3)
    assert next(parts) == 0
    parts.close()

    assert begun == [0, 1, 2]
    assert len(made) <= 4


def test_an_error_of_a_stream_is_raised() -> None:
    """A stream that fails ends the iteration, after what it gave before."""

    def failing() -> Iterator[int]:
        yield 1
        raise KeyError("two")

    parts = parts_of([failing()], 4)
    assert next(parts) == 1
    with pytest.raises(KeyError, match="two"):
        next(parts)
