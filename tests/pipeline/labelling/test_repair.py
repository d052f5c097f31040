"""Repair: what a crash of the machine has cut off goes, and the next run does it again."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.__main__ import main
from jobs.verify import run as verify_run
from pipeline.errors import BrokenPromise, InputError, SettingError, StoreError
from pipeline.labelling.history import History
from pipeline.labelling.mask_tar import pack, spans_of
from pipeline.labelling.publish import publish
from pipeline.labelling.runs import Run, find_run
from pipeline.settings.verify import VerifySettings
from pipeline.store.storage import Storage
from tests.disk_runs import draw_images, label_run, start_run
from tests.product import mask_hashes, snapshot, tables


def _published(folder: Path, **fields: str) -> Run:
    run = start_run(folder, draw_images(folder, 6), max_shard_images=3, **fields)
    label_run(run)
    publish(run, str)
    return run


def _finish(run: Run) -> None:
    label_run(run)
    publish(run, str)


def _path(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def _mask(run: Run) -> Path:
    return _path(f"{run.masks_folder}/image_4.png")


def _commit(run: Run) -> Path:
    return _path(run.commit_uri(1))


def _table(run: Run) -> Path:
    return _path(f"{run.output}/images/run={run.run_id}/part-00000.parquet")


def _plan(run: Run) -> Path:
    return _path(f"{run.folder}/plan/{run.record.plan[0].file}")


_FILES: dict[str, Callable[[Run], Path]] = {
    "mask": _mask,
    "commit": _commit,
    "table": _table,
    "manifest": lambda run: _path(run.manifest_uri),
}


def _names(folder: Path) -> set[str]:
    return {name for name in snapshot(folder / "out") if not name.startswith("locks/")}


@pytest.mark.parametrize("left", [0, 100])
@pytest.mark.parametrize("name", list(_FILES))
def test_what_is_torn_goes_and_is_done_again(name: str, left: int, tmp_path: Path) -> None:
    """A dry repair only names it; a real one leaves a run that the next command finishes."""
    run = _published(tmp_path)
    before = tables(run), mask_hashes(run), _names(tmp_path)
    os.truncate(_FILES[name](run), left)

    assert main(["verify", str(tmp_path / "out")]) in (1, 3)
    files = snapshot(tmp_path / "out")
    assert main(["verify", str(tmp_path / "out"), "--repair"]) == 0
    assert snapshot(tmp_path / "out") == files
    assert main(["verify", str(tmp_path / "out"), "--repair", "--no-dry-run"]) == 0

    assert not run.finished()
    assert len(run.missing()) == (name in ("mask", "commit"))
    label_run(run)
    publish(run, str)
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert (tables(run), mask_hashes(run), _names(tmp_path)) == before


def _tar(run: Run) -> Path:
    return _path(f"{run.masks_folder}/shard-000001.tar")


@pytest.mark.parametrize("name", ["mask", "tar", "commit", "table"])
def test_what_is_gone_of_a_named_run_is_done_again(name: str, tmp_path: Path) -> None:
    """One deleted mask costs its shard; where no run is named, somebody may have meant it."""
    run = _published(tmp_path, masks="tar" if name == "tar" else "files")
    before = tables(run), mask_hashes(run), _names(tmp_path)
    gone = _tar(run) if name == "tar" else _FILES[name](run)
    gone.unlink()
    files, of_all = snapshot(tmp_path / "out"), ["verify", str(tmp_path / "out")]
    of_one = [*of_all, "--repair", "--run-id", run.run_id]

    with pytest.raises(BrokenPromise, match=r"--repair --run-id RUN. names what .* gone"):
        verify_run(VerifySettings(output=run.output))
    assert main([*of_all, "--repair", "--no-dry-run"]) == 0
    assert main(of_one) == 0
    assert snapshot(tmp_path / "out") == files
    assert main([*of_one, "--no-dry-run"]) == 0

    assert not run.finished()
    assert len(run.missing()) == (name != "table")
    label_run(run)
    publish(run, str)
    assert main(of_all) == 0
    assert (tables(run), mask_hashes(run), _names(tmp_path)) == before


@pytest.mark.parametrize("name", ["mask", "tar", "commit", "table", "manifest"])
def test_a_folder_in_the_place_of_a_file_is_named_and_stays(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Repair takes nothing away before somebody has moved it; then the file is one that is gone."""
    run = _published(tmp_path, masks="tar" if name == "tar" else "files")
    place = _tar(run) if name == "tar" else _FILES[name](run)
    place.unlink()
    (place / "theirs").mkdir(parents=True)
    files, of_all = snapshot(tmp_path / "out"), ["verify", run.output]
    of_one = [*of_all, "--repair", "--run-id", run.run_id, "--no-dry-run"]

    assert main(of_all) == 1
    capsys.readouterr()
    assert main(of_one) == 0
    assert f"broken: file://{place}: a folder has its name; move it" in capsys.readouterr().out
    assert snapshot(tmp_path / "out") == files

    place.rename(tmp_path / "elsewhere")
    assert main(of_one) == 0
    _finish(run)
    assert main(of_all) == 0


@pytest.mark.parametrize("name", ["mask", "tar", "commit", "table", "manifest"])
def test_a_folder_in_the_way_of_a_file_ends_the_run(name: str, tmp_path: Path) -> None:
    """No rerun helps, so it is no 5: the sentence names it and says what to do."""
    fields = {"masks": "tar"} if name == "tar" else {}
    run = start_run(tmp_path, draw_images(tmp_path, 6), max_shard_images=3, **fields)
    place = _tar(run) if name == "tar" else _FILES[name](run)
    place.mkdir(parents=True)
    with pytest.raises(InputError, match=r"is to be a file, and a folder .* move it") as refused:
        _finish(run)
    assert str(refused.value).startswith(f"file://{place} ")


def test_a_manifest_that_is_gone_is_written_again(tmp_path: Path) -> None:
    """The mark of the end stands, so that no command would go on with the run: it goes."""
    run = _published(tmp_path)
    before = _names(tmp_path)
    _path(run.manifest_uri).unlink()
    assert main(["verify", run.output]) == 1
    of_one = ["verify", run.output, "--repair", "--run-id", run.run_id, "--no-dry-run"]
    assert main(of_one) == 0
    assert not run.finished()
    publish(run, str)
    assert main(["verify", run.output]) == 0
    assert _names(tmp_path) == before


def test_a_torn_manifest_is_said_in_words_that_lead_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Repair says why it is torn, and does not advise a repair."""
    run = _published(tmp_path)
    os.truncate(_path(run.manifest_uri), 0)
    assert main(["verify", run.output, "--repair"]) == 0
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith(f"broken: {run.manifest_uri}: ")
    assert "--repair" not in said


def test_an_unfinished_run_whose_plan_is_gone_is_named_and_goes(tmp_path: Path) -> None:
    """No rerun would help, so it is no 5; where all of the run is out of reach, it is."""
    run = start_run(tmp_path, draw_images(tmp_path, 6), max_shard_images=3)
    _plan(run).unlink()
    with pytest.raises(InputError, match=rf"{_plan(run).name} is damaged: .*--run-id RUN"):
        label_run(run)
    of_one = ["verify", run.output, "--repair", "--run-id", run.run_id, "--no-dry-run"]
    assert main(of_one) == 0
    assert not _names(tmp_path)
    with pytest.raises(StoreError, match="does not exist"):
        label_run(run)


def test_a_run_that_is_not_there_is_not_whole(tmp_path: Path) -> None:
    """A mistyped name is no run without damage: 3."""
    run = _published(tmp_path)
    assert main(["verify", run.output, "--repair", "--run-id", "no-such"]) == 3


def test_tars_of_a_shard_go_together(tmp_path: Path) -> None:
    """Masks of a further tar would else lie in two: that of the first, done again, has all."""
    run = start_run(tmp_path, draw_images(tmp_path, 6), max_shard_images=3, masks="tar")
    label_run(run)
    first, further = _tar(run), _path(f"{run.masks_folder}/shard-000001-1.tar")
    whole = first.read_bytes()
    span = spans_of(whole)["image_4.png"]
    first.write_bytes(pack({"image_4.png": whole[span.start : span.stop]}))
    _commit(run).unlink()
    label_run(run)
    publish(run, str)
    assert further.exists()
    first.unlink()

    of_one = ["verify", run.output, "--repair", "--run-id", run.run_id, "--no-dry-run"]
    assert main(of_one) == 0
    assert not further.exists()
    label_run(run)
    publish(run, str)
    assert main(["verify", run.output]) == 0


def test_a_whole_output_is_left_alone(tmp_path: Path) -> None:
    """Nothing is removed, nothing is written, no lock is taken."""
    _published(tmp_path)
    files = snapshot(tmp_path / "out")
    assert main(["verify", str(tmp_path / "out"), "--repair", "--no-dry-run"]) == 0
    assert snapshot(tmp_path / "out") == files


def test_a_mask_that_is_torn_before_its_commit_is_named_and_goes(tmp_path: Path) -> None:
    """The run ends with 3 and names the file; after the repair it goes on."""
    run = start_run(tmp_path, draw_images(tmp_path, 6), max_shard_images=3)
    label_run(run)
    _commit(run).unlink()
    os.truncate(_mask(run), 40)
    with pytest.raises(InputError, match=r"image_4\.png is damaged: .*--repair"):
        label_run(run)
    assert main(["verify", str(tmp_path / "out"), "--repair", "--no-dry-run"]) == 0
    label_run(run)
    publish(run, str)
    assert main(["verify", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize("name", ["commit", "plan"])
def test_a_torn_file_in_the_way_is_named(name: str, tmp_path: Path) -> None:
    """Publishing and fetching end with 3 and say which file and which command."""
    run = start_run(tmp_path, draw_images(tmp_path, 6), max_shard_images=3)
    if name == "commit":
        label_run(run)
    path = _commit(run) if name == "commit" else _plan(run)
    os.truncate(path, 50)
    with pytest.raises(InputError, match=rf"{path.name} is damaged: .*--repair"):
        publish(run, str) if name == "commit" else label_run(run)


@pytest.mark.parametrize("name", ["plan", "record"])
def test_an_unfinished_run_without_a_plan_goes(name: str, tmp_path: Path) -> None:
    """It can't go on, and would stand in the way of a new one of its name."""
    run = start_run(tmp_path, draw_images(tmp_path, 6), max_shard_images=3)
    label_run(run)
    os.truncate(_plan(run) if name == "plan" else _path(f"{run.folder}/run.json"), 50)
    assert main(["verify", str(tmp_path / "out"), "--repair", "--no-dry-run"]) == 0
    assert not _names(tmp_path)
    assert not History(Storage(), run.output).runs()


def test_a_published_run_keeps_its_masks_without_a_plan(tmp_path: Path) -> None:
    """What readers see is whole; it is a person's to judge."""
    run = _published(tmp_path)
    os.truncate(_plan(run), 50)
    names = _names(tmp_path)
    assert main(["verify", str(tmp_path / "out"), "--repair", "--no-dry-run"]) == 0
    assert _names(tmp_path) == names


@pytest.mark.parametrize("is_archived", [True, False])
def test_a_published_run_whose_record_is_torn(*, is_archived: bool, tmp_path: Path) -> None:
    """An archive gives the record back; without one all of the run goes, and is said to."""
    run = _published(tmp_path)
    record = _path(f"{run.folder}/run.json")
    if is_archived:
        History(Storage(), run.output).keep_archive(1)
    text, names = record.read_text(), _names(tmp_path)
    record.write_text(text[:50])
    with pytest.raises(InputError, match=r"run\.json is damaged: Invalid JSON.*--repair"):
        find_run(Storage(), run.output, run.run_id)
    assert main(["verify", run.output, "--repair"]) == 0
    assert record.read_text() == text[:50]
    assert main(["verify", run.output, "--repair", "--no-dry-run"]) == 0
    assert _names(tmp_path) == (names if is_archived else set())
    if is_archived:
        assert record.read_text() == text
        assert main(["verify", run.output]) == 0


def test_a_record_is_given_back_before_anything_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repair that is killed leaves the archive, or the record: never neither."""
    run = _published(tmp_path)
    record = _path(f"{run.folder}/run.json")
    text = record.read_text()
    History(Storage(), run.output).keep_archive(1)
    record.write_text(text[:50])
    monkeypatch.setattr(Storage, "remove", lambda *_: pytest.fail("removed"))
    assert main(["verify", run.output, "--repair", "--no-dry-run"]) == 0
    assert record.read_text() == text


def test_a_copy_of_a_run_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A backup beside the runs ends no night; it is named, and its name is nobody's."""
    run = _published(tmp_path)
    shutil.copytree(_path(run.folder), tmp_path / "out/runs/a.bak")
    assert [one.run_id for one in History(Storage(), run.output).runs()] == [run.run_id]
    assert f"is the record of the run {run.run_id}: a copy is" in caplog.text
    for command in ("verify", "report", "runs"):
        assert main([command, run.output]) == 0
    again = start_run(tmp_path, tmp_path / "in", run_id="new")
    assert again.run_id == "new"
    with pytest.raises(SettingError, match="a copy of another run has this name"):
        start_run(tmp_path, tmp_path / "in", run_id="a.bak")
