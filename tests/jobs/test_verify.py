"""`verify` as a command: which runs it judges, and how it ends."""

import shutil
from functools import partial
from pathlib import Path

import pytest

from jobs.__main__ import main
from pipeline.labelling import report
from pipeline.labelling.history import History
from pipeline.labelling.publish import publish
from pipeline.labelling.runs import Run
from tests.disk_runs import draw_images, label_run, start_run


def _run(folder: Path, run_id: str, number: int, *, finish: bool = True) -> Run:
    run = start_run(folder, draw_images(folder, number), run_id=run_id)
    if finish:
        label_run(run)
        publish(run, partial(report.as_html, run, history=History(run.storage, run.output)))
    return run


def _lose_a_mask(run: Run) -> None:
    next(Path(run.masks_folder.removeprefix("file://")).glob("*.png")).unlink()


def test_the_newest_run_is_verified_unless_all_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a word on runs it is the newest one; --all and --run-id find what is older."""
    out = str(tmp_path / "out")
    _lose_a_mask(_run(tmp_path, "first", 2))
    _run(tmp_path, "second", 4)
    assert main(["verify", out]) == 0
    shown = capsys.readouterr()
    assert shown.out == "run second: whole: 2 masks, tables and totals agree\n"
    # A run of `evaluate` in the same output is the newest one, too.
    assert f"input is file://{tmp_path}/in; 1 earlier run not checked, which --all" in shown.err
    assert main(["verify", out, "--all"]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if line.startswith("run ")] == [
        "run first: BROKEN",
        "run second: whole: 2 masks, tables and totals agree",
    ]
    assert main(["verify", out, "--run-id", "first"]) == 1


def test_an_unfinished_newest_run_is_no_success(tmp_path: Path) -> None:
    """Where the newest run is unfinished it ends with 5; of all runs, one that is whole will do."""
    out = str(tmp_path / "out")
    _run(tmp_path, "first", 2)
    _run(tmp_path, "second", 4, finish=False)
    assert main(["verify", out]) == 5
    assert main(["verify", out, "--all"]) == 0


def test_a_sample_says_that_it_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The verdict names how many masks were read, and of how many."""
    _run(tmp_path, "first", 3)
    assert main(["verify", str(tmp_path / "out"), "--sample", "0.000001"]) == 0
    expected = "run first: whole: 0 masks read of 3, tables and totals agree\n"
    assert capsys.readouterr().out == expected


def test_tables_of_a_run_that_somebody_removed_are_named_with_a_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No repair finds a run without its folder; what is said leads to an output that is whole."""
    out = tmp_path / "out"
    _run(tmp_path, "first", 2)
    _run(tmp_path, "second", 4)
    (out / "runs/first/run.json").unlink()
    assert main(["verify", str(out)]) == 1
    shown = capsys.readouterr().out
    assert "table of no known run: images/run=first\n" in shown
    assert "`fcn clean OUTPUT` names a removal that was cut off and ends it; else put" in shown
    shutil.copytree(out, tmp_path / "copy")
    assert main(["clean", str(tmp_path / "copy"), "--no-dry-run"]) == 0
    assert main(["verify", str(tmp_path / "copy")]) == 0

    shutil.rmtree(out / "runs/first")
    assert main(["verify", str(out)]) == 1
    for folder in ("masks", "images", "class_statistics"):
        shutil.rmtree(out / folder / "run=first")
    assert main(["verify", str(out)]) == 0


@pytest.mark.parametrize("flags", [["--all", "--run-id", "a"], ["--sample", "0"]])
def test_settings_that_make_no_sense_are_refused(flags: list[str], tmp_path: Path) -> None:
    """Two answers to which run, and a sample of nothing, end with 2."""
    assert main(["verify", str(tmp_path), *flags]) == 2
