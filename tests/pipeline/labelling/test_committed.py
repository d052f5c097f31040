"""Versions of commit records: what a listing shows, what is asked for by name, and what is not."""

import dataclasses
from pathlib import Path

import pytest

from pipeline.labelling.committed import Versions, listed_versions, looked_up_versions
from pipeline.labelling.runs import Run
from pipeline.store.storage import Storage
from tests.benchmarks.made_up import made_up_run
from tests.servers import Server


def _run(storage: Storage, output: str, *shards: int) -> Run:
    """Make up a run of 130 shards, some of which have something for a commit record."""
    run = dataclasses.replace(made_up_run(130, output), storage=storage)
    run.storage.create(f"{run.folder}/run.json", b"{}")
    for shard in shards:
        run.storage.create(run.commit_uri(shard), f"{shard}".encode())
    return run


@pytest.fixture(params=["disk", "s3", "naive_s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Storage, str]:
    """Return a storage and an output: on a disk, and in buckets of two servers."""
    if request.param == "disk":
        return Storage(), f"file://{tmp_path}/out"
    server: Server = request.getfixturevalue(request.param)
    return Storage(server.endpoint_url), f"s3://{server.make_bucket()}/out"


def test_a_listing_shows_the_versions_that_are_looked_up(place: tuple[Storage, str]) -> None:
    """What a listing says of the records' versions is what the store says of each, by name."""
    run = _run(*place, 0, 1, 64, 129)
    listed, asked = listed_versions(run), looked_up_versions(run)
    assert listed.digest(run.shards) == asked.digest(run.shards)
    assert set(listed.lacking()) == set(range(130)) - {0, 1, 64, 129}
    second = run.narrowed(run.record.plan[1:2])
    assert second.shards == range(64, 128)
    assert looked_up_versions(second).digest(second.shards) == listed.digest(range(64, 128))


def test_without_any_commit_record_all_are_lacking(place: tuple[Storage, str]) -> None:
    """Before the first commit record, when there may be no folder, none is found."""
    run = _run(*place)
    assert listed_versions(run).lacking() == list(run.shards)


def test_a_digest_is_of_its_shards() -> None:
    """The digest of some shards changes with the version of one of them, and of no other."""
    versions = Versions(range(10, 14))
    versions.see(11, "a")
    first, second = versions.digest(range(10, 12)), versions.digest(range(12, 14))
    versions.see(11, "b")
    assert versions.digest(range(10, 12)) != first
    assert versions.digest(range(12, 14)) == second
    assert versions.lacking() == [10, 12, 13]
