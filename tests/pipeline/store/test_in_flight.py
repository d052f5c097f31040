"""Requests in flight: so many, in order, and no more than are taken."""

import threading

import pytest

from pipeline.store.in_flight import answers_of


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
