"""Listings: the next page is on its way while one is worked on."""

import threading
from collections.abc import Callable

import pytest

from pipeline.store.bucket import Page, read_ahead
from pipeline.store.entry import Entry


class _Pages:
    """A listing of some pages that remembers which have been asked for."""

    def __init__(self, number: int) -> None:
        self.asked = [threading.Event() for _ in range(number)]
        self._next = 0

    def next_page(self) -> Page:
        place, self._next = self._next, self._next + 1
        self.asked[place].set()
        entry = Entry(f"s3://b/{place}", "1", 1)
        return Page([entry], set(), is_last=place == len(self.asked) - 1)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_all_pages_come_in_their_order(number: int):
    """Every page is asked for once, and nothing beyond the last."""
    found = [page.entries[0].uri for page in read_ahead(_Pages(number).next_page)]

    assert found == [f"s3://b/{place}" for place in range(number)]


def test_the_next_page_is_asked_for_while_one_is_worked_on():
    """With the first page in hand nothing more is asked for, with a later one the next is."""
    pages = _Pages(4)
    found = read_ahead(pages.next_page)

    next(found)
    assert [one.is_set() for one in pages.asked] == [True, False, False, False]
    next(found)
    assert pages.asked[2].wait(30)
    assert not pages.asked[3].is_set()
    found.close()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_error_comes_in_the_place_of_its_page(place: int):
    """The pages before it are there; an error is raised where its page would be."""
    pages = _Pages(4)

    def asked() -> Page:
        page = pages.next_page()
        if page.entries[0].uri.endswith(str(place)):
            raise TimeoutError(place)
        return page

    assert _read_until_error(asked) == place


def _read_until_error(next_page: Callable[[], Page]) -> int:
    number = 0
    try:
        for _ in read_ahead(next_page):
            number += 1
    except TimeoutError:
        return number
    raise AssertionError
