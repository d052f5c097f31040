"""Reading for a page: whatever a store does, the page is there in time, and so is the end."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from pipeline.labelling.history import History
from pipeline.labelling.page import page
from pipeline.labelling.page.candidates import find_candidates
from pipeline.labelling.page.reads import Deadline, Reads
from pipeline.labelling.publish import publish
from pipeline.labelling.records import Manifest
from pipeline.labelling.report import as_html
from pipeline.labelling.runs import Run
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage
from tests.disk_runs import draw_images, label_run, start_run
from tests.pipeline.labelling.page.two_files import in_two_files


class HangingStorage(Storage):
    """Answers for nothing that is called as what hangs, before `answered` is set."""

    hangs = ""
    answered = Event()

    def read(self, uri: str) -> bytes:
        """Read as `Storage` does, some time."""
        if self.hangs in uri:
            self.answered.wait(60)
        return super().read(uri)

    def read_extent(self, extent: Extent) -> bytes:
        """Read as `Storage` does, some time."""
        return self.read(extent.uri)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingStorage]:
    """Return a storage that answers when the test is over, and a page that waits 2 seconds."""
    monkeypatch.setattr(page, "_SECONDS", 2.0)
    monkeypatch.setattr(page, "_FOR_NIGHTS", 0.5)
    monkeypatch.setattr(HangingStorage, "answered", Event())
    yield HangingStorage()
    HangingStorage.answered.set()


def _finished(folder: Path, number: int, run_id: str) -> tuple[Run, Manifest]:
    run = start_run(folder, draw_images(folder, number), run_id=run_id)
    label_run(run)
    return run, publish(run, str)


@pytest.mark.parametrize(
    ("hangs", "said"),
    [
        ("/class_statistics/", "1 of 1 files of a table, from "),
        ("/images/", "1 of 1 files of a table, from "),
        ("/masks/", "image_3.png: not read in time"),
        ("/runs/first/", "nothing is compared: not read in time"),
    ],
)
def test_a_store_that_hangs_is_a_note(
    hangs: str,
    said: str,
    tmp_path: Path,
    hanging: HangingStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whichever of its reads does: the page is there when its time is up, and says so."""
    _finished(tmp_path, 3, "first")
    run, manifest = _finished(tmp_path, 6, "second")
    run = Run(hanging, run.output, run.record)
    monkeypatch.setattr(HangingStorage, "hangs", hangs)
    began = time.monotonic()

    text = as_html(run, manifest, history=History(hanging, run.output))

    # Drawing takes a second or two; of this a busy machine makes some more.
    assert time.monotonic() - began < 30
    assert said in text
    assert "Class mix" in text


def test_pictures_are_chosen_from_what_is_read_in_time(
    tmp_path: Path, hanging: HangingStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two files one hangs: the images of the other are candidates, and a note names the file."""
    run, manifest = _finished(tmp_path, 9, "night")
    manifest = in_two_files(run, manifest)
    monkeypatch.setattr(HangingStorage, "hangs", manifest.images[1].file)
    run = Run(hanging, run.output, run.record)

    found = find_candidates(run, manifest, 20, Deadline.after(1))

    keys = {f"image_{index}.png" for index in range(4)}
    assert {row["key"] for row in found.least_confident} == keys
    assert {row["key"] for row in found.random} == keys
    assert {row["key"] for rows in found.of_class.values() for row in rows} == keys
    [note] = found.notes
    assert note.startswith(f"1 of 2 files of a table, from {run.output}/{manifest.images[1].file}")


def test_answers_come_in_order_until_the_time_is_up() -> None:
    """Those before the deadline come in their order; then nothing further is taken."""
    hung = Event()
    with Reads(Deadline.after(1), 2) as reads:
        answers = reads.answers([lambda: 1, lambda: 2, lambda: 3, hung.wait, lambda: 5])
        assert [next(answers) for _ in range(3)] == [1, 2, 3]
        with pytest.raises(TimeoutError):
            next(answers)
    hung.set()


def test_an_error_is_raised_in_place_of_its_answer() -> None:
    """What a read raises in its thread is raised where its answer is taken."""
    with Reads(Deadline.after(60), 2) as reads, pytest.raises(ZeroDivisionError):
        list(reads.answers([lambda: 1, lambda: 1 // 0]))


def test_a_deadline_is_never_later_than_the_one_before() -> None:
    """A part of a time ends with it; what is over has nothing left."""
    deadline = Deadline.after(10)

    assert deadline.within(60) == deadline
    assert deadline.within(1).moment < deadline.moment
    assert Deadline.after(-1).left == 0


def test_a_process_does_not_wait_for_what_hangs() -> None:
    """A process that has asked for what never comes ends at once, with its own code."""
    program = (
        "import sys, threading\n"
        "from pipeline.labelling.page.reads import Deadline, read_until\n"
        "try: read_until(Deadline.after(0.1), threading.Event().wait)\n"
        "except TimeoutError: sys.exit(7)\n"
    )

    ended = subprocess.run([sys.executable, "-c", program], timeout=120, check=False)

    assert ended.returncode == 7
