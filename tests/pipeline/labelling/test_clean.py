"""Clean: what newer answers have replaced goes as a whole, and nothing that is needed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from PIL import Image

from jobs.__main__ import main
from pipeline.errors import SettingError
from pipeline.labelling.clean import find_left, find_replaced, find_unfinished, remove_run
from pipeline.labelling.history import History
from pipeline.labelling.publish import publish
from pipeline.labelling.records import NetworkRecord
from pipeline.labelling.runs import Run
from pipeline.store.lock import Lock
from pipeline.store.storage import Storage
from tests.cut_off import cut_off
from tests.disk_runs import draw_images, label_run, network_record, random_pixels, start_run


def _night(folder: Path, network: NetworkRecord | None = None, *changed: int) -> Run:
    """Label what is new or changed, as a night does; the run has a name of its own."""
    for index in changed:
        number = len(list((folder / "out/runs").iterdir()))
        pixels = random_pixels(100 * number + index, 6, 7, 3)
        Image.fromarray(pixels).save(folder / f"in/image_{index}.png")
    run = start_run(folder, folder / "in", network)
    label_run(run)
    publish(run, lambda _: "")
    return run


def _replaced(folder: Path, *, of_any_network: bool = False) -> list[str]:
    history = History(Storage(), f"file://{folder}/out")
    return [one.run_id for one in find_replaced(history, of_any_network=of_any_network)]


@pytest.fixture
def nights(tmp_path: Path) -> list[Run]:
    """Return three nights: all of three images, two of them changed, the third and one changed."""
    draw_images(tmp_path, 3)
    return [_night(tmp_path), _night(tmp_path, None, 0, 1), _night(tmp_path, None, 1, 2)]


def _clean(folder: Path, *flags: str) -> int:
    return main(["clean", str(folder / "out"), *flags])


def test_a_run_goes_when_all_of_it_is_replaced(
    nights: list[Run], tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """Two of three runs hold a newest answer; the first goes, and what stays is whole."""
    assert _replaced(tmp_path) == [nights[0].run_id]
    files = [
        path
        for path in tmp_path.rglob("*")
        if path.is_file() and nights[0].run_id in str(path.parent)
    ]
    said = f"{len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB"

    assert _clean(tmp_path, "--keep-newest") == 0
    shown = capfd.readouterr().out
    assert f"run {nights[0].run_id}: each of its 3 images has a newer answer; {said}" in shown
    assert "1 run(s) can go; --no-dry-run removes them" in shown
    assert nights[0].manifest() is not None

    assert _clean(tmp_path, "--keep-newest", "--no-dry-run") == 0
    assert "1 run(s) are gone" in capfd.readouterr().out
    assert not [path for path in tmp_path.rglob("*") if nights[0].run_id in path.name]
    assert main(["verify", str(tmp_path / "out"), "--all"]) == 0
    assert _clean(tmp_path, "--keep-newest") == 0
    assert "0 run(s) can go" in capfd.readouterr().out


def test_without_keep_newest_no_whole_run_goes(nights: list[Run], tmp_path: Path):
    """The switch has to be given: a run that is replaced stays without it."""
    assert _clean(tmp_path, "--no-dry-run") == 0

    assert all(run.finished() for run in nights)


def test_a_mask_stays_while_the_newer_answer_is_a_failure(tmp_path: Path):
    """An image that fails in a newer run keeps the run with its mask."""
    folder = draw_images(tmp_path, 1)
    first = _night(tmp_path)
    (folder / "image_0.png").write_bytes(b"\x89PNG and no more")
    second = _night(tmp_path)
    assert second.manifest().num_failed == 1

    assert _replaced(tmp_path) == []

    third = _night(tmp_path, None, 0)
    assert _replaced(tmp_path) == [first.run_id, second.run_id]
    assert third.finished()


def test_networks_replace_each_other_only_where_that_is_asked_for(tmp_path: Path):
    """The answers of another network are others, but for --any-network."""
    draw_images(tmp_path, 2)
    old = _night(tmp_path)
    _night(tmp_path, network_record("random:1"))

    assert _replaced(tmp_path) == []
    assert _replaced(tmp_path, of_any_network=True) == [old.run_id]


def test_an_unfinished_run_stays(nights: list[Run], tmp_path: Path):
    """What its own command can resume is no one else's to remove, however old."""
    (tmp_path / f"out/runs/{nights[0].run_id}/_SUCCESS").unlink()

    assert _replaced(tmp_path) == []


def test_a_removal_that_was_cut_off_is_ended_by_the_next(nights: list[Run], tmp_path: Path):
    """From its first step on the run counts as none; what is left of it is found and goes."""
    storage, output = Storage(), f"file://{tmp_path}/out"
    [found] = find_replaced(History(storage, output), of_any_network=False)

    for allowed in range(len(found.folders) + 1):
        with cut_off("remove_folder", allowed):
            remove_run(storage, output, found)
        assert [run.run_id for run in History(storage, output).runs()] == [
            run.run_id for run in nights[1:]
        ]
        assert [one.run_id for one in find_left(storage, output)] == [found.run_id]

    assert _clean(tmp_path, "--no-dry-run") == 0
    assert find_left(storage, output) == []
    assert not [path for path in tmp_path.rglob("*") if found.run_id in path.name]


def test_a_run_that_begins_is_not_taken_for_left(tmp_path: Path):
    """A plan is written before its record: alone it is nothing that a removal has left."""
    draw_images(tmp_path, 1)
    run = start_run(tmp_path, tmp_path / "in")
    (tmp_path / f"out/runs/{run.run_id}/run.json").unlink()

    assert find_left(Storage(), f"file://{tmp_path}/out") == []


def test_a_run_at_work_is_left_alone(
    nights: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Where a command holds the lock of the run's input and network, nothing is removed: 7."""
    monkeypatch.setattr("pipeline.labelling.clean.LEASE_S", 3.0)
    record = nights[0].record
    with Lock(Storage(), f"file://{tmp_path}/out/locks/{record.identity}", 3.0):
        assert _clean(tmp_path, "--keep-newest", "--no-dry-run") == 7

    assert nights[0].finished()


def test_what_was_removed_is_labelled_anew(nights: list[Run], tmp_path: Path):
    """An archive that names the run goes with it: planning does not count its answers."""
    output = f"file://{tmp_path}/out"
    History(Storage(), output).keep_archive(1)
    assert _clean(tmp_path, "--keep-newest", "--no-dry-run") == 0
    assert Storage().children(f"{output}/history") in ([], ["answers"])

    names = {run.run_id for run in History(Storage(), output).runs()}
    assert names == {run.run_id for run in nights[1:]}


def test_folders_of_others_are_left_alone(nights: list[Run], tmp_path: Path):
    """Without a run's folder nothing is a run's, whatever it is called; no stray file disturbs."""
    for name in ("masks/run=", "images/run=2026-11-01/front", "masks/run=..", "runs/someone's"):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "file").write_text("theirs")
    (tmp_path / "out/runs/.DS_Store").write_text("")

    assert _clean(tmp_path, "--no-dry-run") == 0

    assert all(run.finished() for run in nights)
    assert len(list(tmp_path.rglob("file"))) == 4


def test_the_name_of_a_half_removed_run_is_not_used_again(tmp_path: Path):
    """A run of that name would find commits of another: it is refused until the rest is gone."""
    draw_images(tmp_path, 2)
    run = start_run(tmp_path, tmp_path / "in", run_id="nightly")
    label_run(run)
    (tmp_path / "out/runs/nightly/run.json").unlink()

    with pytest.raises(SettingError, match=r"removal of a run .* cut off; `fcn clean"):
        start_run(tmp_path, tmp_path / "in", run_id="nightly")
    assert _clean(tmp_path, "--no-dry-run") == 0

    assert start_run(tmp_path, tmp_path / "in", run_id="nightly").missing().num_images == 2


def test_a_run_that_was_begun_since_is_left_alone(tmp_path: Path):
    """What was left of a run, and is one of that name by now, is no leftover any more."""
    draw_images(tmp_path, 1)
    run = start_run(tmp_path, tmp_path / "in", run_id="nightly")
    label_run(run)
    record = tmp_path / "out/runs/nightly/run.json"
    kept = record.read_bytes()
    record.unlink()
    storage, output = Storage(), f"file://{tmp_path}/out"
    [found] = find_left(storage, output)
    record.write_bytes(kept)

    remove_run(storage, output, found)

    assert len(run.committed()) == 1


def test_a_run_that_is_locked_does_not_keep_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The others go; the exit code says that something stays: 7."""
    monkeypatch.setattr("pipeline.labelling.clean.LEASE_S", 3.0)
    draw_images(tmp_path, 1)
    nights = [_night(tmp_path), _night(tmp_path, network_record("random:1"))]
    _night(tmp_path, None, 0)
    _night(tmp_path, network_record("random:1"))
    with Lock(Storage(), f"file://{tmp_path}/out/locks/{nights[0].record.identity}", 3.0):
        assert _clean(tmp_path, "--keep-newest", "--no-dry-run") == 7

    assert [run.finished() for run in nights] == [True, False]


def test_runs_that_nobody_has_finished_go(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """Old ones alone, where nobody is at work on them; what is published stays whole."""
    draw_images(tmp_path, 2)
    night = _night(tmp_path)
    begun = start_run(tmp_path, tmp_path / "in", network_record("random:1"))
    label_run(begun)
    record = tmp_path / f"out/runs/{begun.run_id}/run.json"

    assert _clean(tmp_path, "--unfinished-days", "2", "--no-dry-run") == 0
    assert "0 run(s) are gone" in capfd.readouterr().out

    today = f"{begun.record.created_at:%Y-%m-%d}"
    for path in (record, tmp_path / f"out/runs/{night.run_id}/run.json"):
        path.write_text(path.read_text().replace(today, "2026-01-02"))
    with Lock(Storage(), f"file://{tmp_path}/out/locks/{begun.record.identity}", 30.0):
        assert _clean(tmp_path, "--unfinished-days", "2", "--no-dry-run") == 7
    assert record.exists()
    assert _clean(tmp_path, "--unfinished-days", "2", "--no-dry-run") == 0
    assert f"run {begun.run_id}: it began at 2026-01-02" in capfd.readouterr().out
    assert not [path for path in tmp_path.rglob("*") if begun.run_id in str(path)]
    assert main(["verify", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize("days", ["0", "36501", "inf", "nan"])
def test_days_that_lead_to_no_date_are_refused(days: str, tmp_path: Path):
    """A mistyped number is a wrong setting, 2, and no bug."""
    assert _clean(tmp_path, "--unfinished-days", days) == 2


def test_a_run_that_is_finished_meanwhile_stays(tmp_path: Path):
    """Between the look and the removal its own command may have ended, and its lock is free."""
    draw_images(tmp_path, 2)
    begun = start_run(tmp_path, tmp_path / "in")
    label_run(begun)
    history = History(Storage(), f"file://{tmp_path}/out")
    [found] = find_unfinished(history, datetime.now(UTC) + timedelta(days=1))
    publish(begun, lambda _: "")

    assert not remove_run(Storage(), f"file://{tmp_path}/out", found)
    assert main(["verify", str(tmp_path / "out")]) == 0


def test_a_linked_folder_of_masks_goes_with_what_is_in_it(nights: list[Run], tmp_path: Path):
    """Somebody has moved a run's masks to another disk, and linked them."""
    masks = tmp_path / f"out/masks/run={nights[0].run_id}"
    masks.rename(tmp_path / "elsewhere")
    masks.symlink_to(tmp_path / "elsewhere")

    assert _clean(tmp_path, "--keep-newest", "--no-dry-run") == 0

    assert not masks.is_symlink()
    assert not (tmp_path / "elsewhere").exists()
