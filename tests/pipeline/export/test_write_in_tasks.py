"""`export` on a cluster: tasks write what one process writes, and fail as it does."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from PIL import Image

from jobs.__main__ import main
from pipeline.cluster.packing import Node
from pipeline.cluster.tasks import in_order
from pipeline.errors import ClusterLost, InputError, WaitedTooLong
from pipeline.export import write_in_tasks
from pipeline.export.writer import Writer
from pipeline.settings.export import ExportSettings
from pipeline.store.storage import Storage
from tests.disk_runs import random_pixels
from tests.pipeline.export.labelled_output import on_disk, two_nights
from tests.servers import Server


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with in/ and out/, of two nights."""
    folder = tmp_path_factory.mktemp("nights")
    two_nights(on_disk(folder), Storage())
    return folder


@pytest.fixture(autouse=True)
def _few_images_per_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_in_tasks, "_IMAGES_PER_TASK", 3)


def _export(place: Path, to: Path, form: str, *flags: str) -> tuple[int, dict[str, bytes]]:
    """Export; gives the exit code and the files."""
    code = main(["export", str(place / "out"), "--format", form, "--to", str(to), *flags])
    return code, {
        str(path.relative_to(to)): path.read_bytes() for path in to.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("form", ["voc", "coco", "label-studio", "webdataset", "hf"])
def test_a_cluster_writes_the_same(
    form: str, place: Path, tmp_path: Path, ray_session: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Every file of every form, and what is said of them: Label Studio's two warnings, too."""
    caplog.set_level("WARNING")
    here = _export(place, tmp_path / "here", form)
    said = [line for line in caplog.messages if "here" not in line]
    caplog.clear()
    there = _export(place, tmp_path / "there", form, "--ray-address", ray_session)
    assert (there, here[0], len(here[1]) > 1) == (here, 0, True)
    assert caplog.messages == said
    assert len(said) == (2 if form == "label-studio" else 0)


def test_a_cluster_writes_the_same_to_a_bucket(s3: Server, ray_session: str) -> None:
    """Where all places are in buckets, tasks of any node write what one process writes."""
    bucket = f"s3://{s3.make_bucket()}"
    storage = Storage(s3.endpoint_url)
    two_nights(bucket, storage, s3.endpoint_url)
    found = []
    for to, flags in (("here", []), ("there", ["--ray-address", ray_session])):
        arguments = ["export", f"{bucket}/out", "--format", "voc", "--to", f"{bucket}/{to}"]
        assert main([*arguments, "--s3-endpoint-url", s3.endpoint_url, *flags]) == 0
        entries = list(storage.walk(f"{bucket}/{to}"))
        names = [entry.uri.removeprefix(f"{bucket}/{to}/") for entry in entries]
        found.append(dict(zip(names, [storage.read(one.uri) for one in entries], strict=True)))
    assert found[0] == found[1]
    assert len(found[0]) > 20


_ON_A_DISK = {"uri": "file:///in/a.jpg", "num_bytes": 9}
_IN_A_BUCKET = {"uri": "s3://bucket/in/b.jpg", "num_bytes": 9}
_IN_PARQUET = {"uri": "s3://bucket/in/c.parquet!/image/000000007", "num_bytes": 9}


def _written(to: str, *rows: dict[str, Any]) -> list[str]:
    """Let rows be written on a cluster by what only says their URIs."""
    settings = ExportSettings(output="s3://bucket/out", format="voc", to=to, ray_address="auto")
    writer = Mock(side_effect=lambda named: (row["uri"] for _, row in named))
    named = iter([(str(number), row) for number, row in enumerate(rows)])
    return list(write_in_tasks.in_cluster(settings)(writer, named))


def test_what_other_nodes_can_not_see_or_would_read_often_is_written_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No task gets images of a Parquet file, nor a disk's where this node has no CPU for it."""
    for name in ("in_order", "wait_for_a_task"):
        monkeypatch.setattr(write_in_tasks, name, Mock(side_effect=AssertionError))
    monkeypatch.setattr(write_in_tasks, "start_ray", Mock())
    monkeypatch.setattr(write_in_tasks, "own_node", lambda: Node({"memory": 1.0}, "head", "head"))
    for to, row in (("s3://bucket/to", _IN_PARQUET), ("s3://bucket/to", _ON_A_DISK)):
        assert _written(to, row) == [row["uri"]]
    assert _written("/to", _IN_A_BUCKET) == [_IN_A_BUCKET["uri"]]
    assert _written("/to") == []


def test_images_on_a_disk_among_those_in_buckets_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tasks on any node would take them for gone."""
    monkeypatch.setattr(write_in_tasks, "start_ray", Mock())
    monkeypatch.setattr(write_in_tasks, "wait_for_a_task", Mock())
    monkeypatch.setattr(write_in_tasks, "in_order", lambda items, *_: iter(list(items)))
    settings = ExportSettings(
        output="s3://bucket/out", format="voc", to="s3://bucket/to", ray_address="auto"
    )
    writer = Writer(Mock(), Storage(), "s3://bucket/to", 1)
    named = iter([("b", _IN_A_BUCKET), ("a", _ON_A_DISK)])
    with pytest.raises(InputError, match=r"file:///in/a\.jpg lies on a disk"):
        list(write_in_tasks.in_cluster(settings)(writer, named))


def test_large_images_are_few_in_a_task() -> None:
    """A task has so many images, or so many bytes of them."""
    rows = [("", {"num_bytes": size}) for size in (1, 2, 3, 4, 100 << 20, 5)]
    groups = write_in_tasks._groups(iter(rows))
    assert [len(group) for group in groups] == [3, 2, 1]


def test_what_tasks_leave_out_is_counted(
    tmp_path: Path, ray_session: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Images that are gone, and that have changed, are named by the command and not by a task."""
    two_nights(on_disk(tmp_path), Storage())
    (tmp_path / "in" / "a.jpg").unlink()
    Image.fromarray(random_pixels(9, 3, 4, 3)).save(tmp_path / "in" / "deep" / "d.png")
    here = _export(tmp_path, tmp_path / "here", "voc")
    caplog.clear()
    assert _export(tmp_path, tmp_path / "there", "voc", "--ray-address", ray_session) == here
    assert here[0] == 4
    assert caplog.text.count("left out, since it can't be read any more") == 2
    assert "a.jpg" in caplog.text
    assert "deep/d.png" in caplog.text


def test_an_error_of_a_task_ends_the_command_as_its_own(
    tmp_path: Path, ray_session: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged mask ends it with 3 and its name, without a traceback of Ray's."""
    two_nights(on_disk(tmp_path), Storage())
    next((tmp_path / "out" / "masks").rglob("new one.png")).write_bytes(b"cut off")
    code, _ = _export(tmp_path, tmp_path / "to", "voc", "--ray-address", ray_session)
    assert code == 3
    assert "new one.png is not the mask that was written" in caplog.text
    assert "Traceback" not in caplog.text


def test_items_are_taken_as_there_is_room(ray_session: str) -> None:
    """Of a series without an end a few are ahead; results come in order."""
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(10**9):
            taken.append(number)
            yield number

    found = in_order(numbers(), json.dumps, 1.0)
    assert [next(found) for _ in range(20)] == [str(number) for number in range(20)]
    assert len(taken) <= 20 + 8
    found.close()  # type: ignore[attr-defined]  # it is a generator


def test_a_task_that_hangs_ends_the_wait(ray_session: str) -> None:
    """After max_wait_minutes without a result the message says what was waited for."""

    def hang(_: int) -> None:
        import time  # noqa: PLC0415 - travels to a task

        time.sleep(5)

    with pytest.raises(WaitedTooLong, match=r"no task has ended for 0\.01 minutes"):
        list(in_order([1], hang, 0.01))


def test_a_task_that_ends_its_process_each_time_is_said(ray_session: str) -> None:
    """It is no bug: another node, or more memory, may be what it wants."""
    with pytest.raises(ClusterLost, match="lost its process or its node 11 times"):
        list(in_order([1], os._exit, 1.0))
