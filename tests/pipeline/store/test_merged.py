"""Large buckets: folders are listed at the same time, and every object comes once."""

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from pipeline.errors import ErrorCode, StoreError
from pipeline.store.bucket import Answer
from pipeline.store.merged import merged
from pipeline.store.s3_client import S3Client
from pipeline.store.storage import Storage
from tests.servers import Server

_AT_A_TIME = 4


def _count(start: int, end: int) -> Iterator[int]:
    yield from range(start, end)


@pytest.mark.parametrize("number", [1, 3, 20])
def test_all_items_of_all_listings_come(number: int) -> None:
    """Each once, whoever is read first, in a place of a few items."""
    listings = [partial(_count, 100 * index, 100 * index + index) for index in range(number)]
    found = sorted(merged(listings, _AT_A_TIME))
    assert found == [100 * index + item for index in range(number) for item in range(index)]


def test_an_error_of_one_listing_is_raised() -> None:
    """And nothing is waited for that the others still had to say."""

    def fail() -> Iterator[int]:
        yield 1
        raise TimeoutError("gone")

    with pytest.raises(TimeoutError, match="gone"):
        list(merged([fail, partial(_count, 0, 10**9)], _AT_A_TIME))


def test_who_takes_no_more_ends_the_threads() -> None:
    """A listing whose reader goes away stops, and does not go on in the background."""
    before = set(threading.enumerate())
    found = merged([partial(_count, 0, 10**9) for _ in range(6)], _AT_A_TIME)
    next(found)
    # By name: other threads of this process may begin and end as they like.
    begun = [
        thread
        for thread in threading.enumerate()
        if thread not in before and thread.name.startswith("listing")
    ]
    assert begun
    found.close()
    for thread in begun:
        thread.join(timeout=10)
    assert not [thread.name for thread in begun if thread.is_alive()]


@pytest.fixture
def bucket(s3: Server) -> str:
    """Return a bucket of some folders, one of them empty, and objects beside them."""
    name = s3.make_bucket()
    keys = [
        f"in/{folder}/{index}.jpg" for folder in ("a", "b b", "c%20", "ü") for index in range(9)
    ]
    for key in (*keys, "in/x.jpg", "in/z.jpg", "in/a/deep/er/1.jpg", "in/mark/", "other/1.jpg"):
        s3.put(name, key, b"1")
    return name


@pytest.mark.parametrize("alone", [1, 3, 20])
@pytest.mark.parametrize("size", [1, 4, 7])
def test_every_object_of_a_large_bucket_comes_once(
    alone: int, size: int, bucket: str, s3: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a listing goes over from one page after the other to folder after folder."""
    expected = sorted(entry.uri for entry in Storage(s3.endpoint_url).walk(f"s3://{bucket}/in"))
    assert len(expected) == 39
    ask, asked = S3Client.page, []

    def page(client: S3Client, **given: Any) -> Answer:
        asked.append(given)
        return ask(client, **given, **({} if "Delimiter" in given else {"MaxKeys": size}))

    monkeypatch.setattr(S3Client, "page", page)
    monkeypatch.setattr("pipeline.store.bucket._PAGES_ALONE", alone)
    found = sorted(entry.uri for entry in Storage(s3.endpoint_url).walk(f"s3://{bucket}/in"))

    assert found == expected
    by_folders = alone * size < 39
    assert ("in/b b/" in {given["Prefix"] for given in asked}) == by_folders


def test_what_lies_in_one_folder_is_listed_page_after_page(
    bucket: str, s3: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without folders there is nothing to list at the same time, and nothing is asked for them."""
    monkeypatch.setattr("pipeline.store.bucket._PAGES_ALONE", 1)
    ask = S3Client.page
    monkeypatch.setattr(S3Client, "page", lambda client, **given: ask(client, **given, MaxKeys=2))
    storage = Storage(s3.endpoint_url)
    assert len(list(storage.walk(f"s3://{bucket}/in/b b"))) == 9
    assert storage.requests["list"] == 5


def test_a_folder_that_can_not_be_listed_is_an_error(
    bucket: str, s3: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one of them meets is raised: a listing is never less than all."""
    monkeypatch.setattr("pipeline.store.bucket._PAGES_ALONE", 1)
    ask = S3Client.page

    def page(client: S3Client, **given: Any) -> Answer:
        if given["Prefix"] == "in/b b/":
            raise StoreError(ErrorCode.FORBIDDEN, "not this one")
        return ask(client, **given, **({} if "Delimiter" in given else {"MaxKeys": 2}))

    monkeypatch.setattr(S3Client, "page", page)
    with pytest.raises(StoreError, match="not this one"):
        list(Storage(s3.endpoint_url).walk(f"s3://{bucket}/in"))
