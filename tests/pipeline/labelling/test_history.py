"""The history: what a command asks the store about earlier runs, and how often."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.labelling.draft import draft
from pipeline.labelling.history import History
from pipeline.labelling.plan import start_run
from pipeline.labelling.publish import publish
from pipeline.labelling.runs import Run
from pipeline.labelling.session import open_job
from pipeline.settings.label import LabelSettings
from pipeline.store.storage import Storage
from tests.disk_runs import NUM_CLASSES, draw_images, label_run
from tests.servers import Server


def _settings(folder: Path, **fields: Any) -> LabelSettings:
    given = {
        "input": str(folder / "in"),
        "output": str(folder / "out"),
        "weights": "random:0",
        "num_classes": NUM_CLASSES,
    }
    return LabelSettings(**{**given, **fields})


def _started(folder: Path, **fields: Any) -> Run:
    job = open_job(_settings(folder, **fields))
    return start_run(
        job.storage, job.settings, job.record, draft(job.history, job.settings, job.record)
    )


def _finished(folder: Path, **fields: Any) -> Run:
    draw_images(folder, 1)
    run = _started(folder, **fields)
    label_run(run)
    publish(run, str)
    return run


def _multiply(folder: Path, run: Run, number: int, *, other: bool) -> None:
    """Copy what a run has written until there are `number` runs, the copies of one network."""
    record = run.record
    for index in range(number - 1):
        name = f"copy-{index}"
        for place in ("runs/{}", "images/run={}"):
            copy = folder / "out" / place.format(name)
            shutil.copytree(folder / "out" / place.format(run.run_id), copy)
            for path in copy.glob("*.json"):
                text = path.read_text().replace(run.run_id, name)
                for own in (record.network.fingerprint, record.identity) if other else ():
                    text = text.replace(own, "of-another-network")
                path.write_text(text)


def _upload(folder: Path, server: Server) -> dict[str, str]:
    """Copy what an output says of its runs into a bucket; give the settings that name it."""
    bucket, client = server.make_bucket(), server.client()
    for path in (folder / "out").rglob("*"):
        if path.parent.parent.name in ("runs", "images") and path.is_file():
            key = str(path.relative_to(folder))
            client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    return {"output": f"s3://{bucket}/out", "s3_endpoint_url": server.endpoint_url}


def _asked(settings: LabelSettings) -> Counter[str]:
    """Count the requests of a command up to its first shard."""
    job = open_job(settings)
    found = job.look()
    assert job.nothing_left(found) is None
    job = job.checked()
    with job.lock() as lock:
        assert job.open_run(job.look_again(found), lock.number).missing()
        return Counter(job.storage.requests)


def _more(folder: Path, server: Server | None, *, other: bool, **fields: Any) -> Counter[str]:
    """Count what 50 earlier runs cost more than 5.

    Args:
        folder: Where the runs are made.
        server: Of the bucket that they lie in; None: they stay on the disk.
        other: Whether they are of another network than the command.
        **fields: Settings of the command.
    """
    asked = []
    for number in (5, 50):
        place = folder / str(number)
        place.mkdir()
        _multiply(place, _finished(place), number, other=other)
        draw_images(place, 2)  # a new image, so that there is something to do
        where = _upload(place, server) if server else {}
        asked.append(_asked(_settings(place, **where, **fields)))
    asked[1].subtract(asked[0])
    return +asked[1]


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_a_run_of_another_network_costs_one_read(place: str, tmp_path: Path, s3: Server) -> None:
    """45 more earlier runs of another network cost 45 reads, and no page of a listing."""
    more = _more(tmp_path, s3 if place == "bucket" else None, other=True)
    assert more == {"read": 45}


@pytest.mark.parametrize(
    ("fields", "asked"),
    [({"run_id": "tonight"}, {"read": 3 * 45}), ({}, {"read": 3 * 45, "look": 45})],
    ids=["named", "unnamed"],
)
def test_a_run_of_the_network_is_read_once(
    fields: dict[str, str], asked: dict[str, int], tmp_path: Path
) -> None:
    """It costs a read of its record, its manifest and its table, and no page of a listing.

    Without a name of its own a command looks which runs are finished, too.
    """
    assert _more(tmp_path, None, other=False, **fields) == asked


def test_a_resumed_run_needs_no_tables(tmp_path: Path) -> None:
    """A run that goes on reads the records of the others, and none of their tables."""
    asked = []
    for number in (5, 50):
        place = tmp_path / str(number)
        place.mkdir()
        _multiply(place, _finished(place), number, other=False)
        draw_images(place, 2)
        _started(place, run_id="tonight")
        asked.append(_asked(_settings(place)))
    asked[1].subtract(asked[0])
    assert +asked[1] == {"read": 45, "look": 45}


def test_a_named_run_is_found_without_the_others(tmp_path: Path) -> None:
    """Reading one run by its name costs one read, whatever else the output holds."""
    _multiply(tmp_path, _finished(tmp_path), 5, other=False)
    history = History(Storage(), f"file://{tmp_path}/out")
    assert [run.run_id for run in history.require("copy-3")] == ["copy-3"]
    assert history.storage.requests == {"read": 1}
    with pytest.raises(InputError, match="holds no run 'copy-9'"):
        history.require("copy-9")


def test_what_is_known_is_not_asked_again(tmp_path: Path) -> None:
    """A second question costs nothing, and a refresh one listing and what was not there yet."""
    run = _finished(tmp_path)
    draw_images(tmp_path, 2)
    begun = _started(tmp_path)
    history = History(Storage(), run.output)
    for _ in range(3):
        both = history.of_network(run.record.network.fingerprint)
        assert [one.run_id for one in both] == [run.run_id, begun.run_id]
        assert history.finished(both) == [True, False]
        assert [manifest is not None for manifest in history.manifests(both)] == [True, False]
    assert history.storage.requests == {"list": 1, "read": 4, "look": 2}
    label_run(begun)
    publish(begun, str)
    assert history.finished(both) == [True, False]
    history.refresh()
    assert history.finished(history.runs()) == [True, True]
    assert None not in history.manifests(both)
    assert history.storage.requests == {"list": 2, "read": 5, "look": 3}


def test_runs_that_begin_meanwhile_are_seen_under_the_lock(tmp_path: Path) -> None:
    """What another process has done between the look and the lock is not done again."""
    draw_images(tmp_path, 2)
    job = open_job(_settings(tmp_path))
    found = job.look()
    other = _started(tmp_path)
    with job.lock() as lock:
        assert job.open_run(job.look_again(found), lock.number).run_id == other.run_id
    label_run(other)
    found = open_job(_settings(tmp_path)).look()
    publish(other, str)
    with job.lock():
        done = job.nothing_left(job.look_again(found))
    assert done is not None
    assert (done.run, done.num_skipped) == (None, 2)


def test_only_tables_of_unknown_runs_are_orphans(tmp_path: Path) -> None:
    """What systems leave in folders, as macOS does, is nobody's table."""
    draw_images(tmp_path, 1)
    run, output = _started(tmp_path), tmp_path / "out"
    for name in (
        "images/.DS_Store",
        "class_statistics/desktop.ini",
        "images/run=gone/part.parquet",
    ):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_bytes(b"x")

    assert History(run.storage, run.output).orphans() == ["images/run=gone"]
