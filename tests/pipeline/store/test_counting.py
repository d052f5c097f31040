"""What a storage counts: the requests that it makes, by kind."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.store.attempts import Tally
from pipeline.store.storage import Storage
from tests.servers import Server


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_every_request_is_counted_by_its_kind(place: str, tmp_path: Path, s3: Server) -> None:
    """Reads, writes, look-ups and pages of listings count alike on a disk and in a bucket."""
    storage = Storage(s3.endpoint_url)
    folder = f"file://{tmp_path}" if place == "disk" else f"s3://{s3.make_bucket()}"
    storage.write(f"{folder}/a", b"1")
    assert storage.create(f"{folder}/b", b"2")
    assert not storage.create(f"{folder}/b", b"3")  # it reads whose object is there
    assert storage.find(f"{folder}/c") is None
    assert not storage.exists(f"{folder}/c")
    with pytest.raises(StoreError):
        storage.stat(f"{folder}/c")
    assert storage.children(folder) == ["a", "b"]
    assert len(list(storage.walk(folder))) == 2
    assert storage.requests == {"write": 3, "read": 2, "look": 2, "list": 2}


def test_a_count_starts_anew() -> None:
    """`counting` leaves the first count alone; counts travel to other processes."""
    storage = Storage()
    storage.exists("file:///nowhere")
    other = pickle.loads(pickle.dumps(storage.counting()))
    other.exists("file:///nowhere")
    other.requests.count("look", 2)
    assert (storage.requests, other.requests) == ({"look": 1}, {"look": 3})


def test_no_request_of_many_threads_is_lost() -> None:
    """Threads that count at once count all."""
    tally = Tally()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: tally.count("read"), range(4000)))
    assert tally == {"read": 4000}
