"""`export` on a cluster: tasks write what one process writes, and fail as it does."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from jobs.__main__ import main
from pipeline.cluster.tasks import in_order
from pipeline.errors import WaitedTooLong
from pipeline.export import write_in_tasks
from pipeline.store.storage import Storage
from tests.disk_runs import random_pixels
from tests.pipeline.export.labelled_output import on_disk, two_nights


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
