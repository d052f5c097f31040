"""`runs` and `report`: which runs an output holds, and what they have done."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main
from pipeline.labelling.publish import publish
from pipeline.labelling.runs import Run
from tests.disk_runs import draw_images, label_run, start_run

_Captured = pytest.CaptureFixture[str]


def _night(folder: Path, number: int, *, finish: bool = True) -> Run:
    """Label what is new among so many images, and publish it if it is to be finished."""
    run = start_run(folder, draw_images(folder, number), run_id=f"night-{number}")
    if finish:
        label_run(run)
        publish(run, lambda manifest: f"{manifest.num_images} images")
    return run


@pytest.fixture
def nights(tmp_path: Path) -> Path:
    """Return an output with two finished runs and one that was cut off."""
    _night(tmp_path, 2)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"<html>")
    _night(tmp_path, 5)
    _night(tmp_path, 6, finish=False)
    return tmp_path / "out"


def test_runs_are_listed_newest_first(nights: Path, capfd: _Captured) -> None:
    """A table shows each run with its state, its numbers and its time."""
    assert main(["runs", str(nights)]) == 0
    heading, *lines = capfd.readouterr().out.splitlines()
    assert heading.split() == [
        *("run", "state", "network", "weights", "images", "failed"),
        *("confidence", "started", "(UTC)", "took"),
    ]
    assert [line.split()[:6] for line in lines] == [
        ["night-6", "unfinished", "fcn_all_skips", "random:0", "1", lines[0].split()[5]],
        ["night-5", "finished", "fcn_all_skips", "random:0", "4", "1"],
        ["night-2", "finished", "fcn_all_skips", "random:0", "2", "0"],
    ]
    assert all(line.endswith(" s") for line in lines[1:])


def test_programs_are_told_of_runs_in_json(nights: Path, capfd: _Captured) -> None:
    """--json gives what the table shows, and the images' own mean of confidence."""
    assert main(["runs", str(nights), "--json"]) == 0
    unfinished, newest, oldest = json.loads(capfd.readouterr().out)
    assert (unfinished["state"], "num_failed" in unfinished) == ("unfinished", False)
    assert (newest["num_images"], newest["num_failed"], newest["num_skipped"]) == (4, 1, 2)
    rows = pq.read_table(nights / "images" / "run=night-2").to_pylist()
    expected = sum(row["mean_confidence"] for row in rows) / len(rows)
    assert oldest["mean_confidence"] == pytest.approx(expected)
    assert oldest["seconds"] >= 0


def test_the_report_is_of_the_newest_run(nights: Path, capfd: _Captured) -> None:
    """Unless told otherwise it shows the last run, and says where the others are listed."""
    assert main(["report", str(nights)]) == 0
    shown = capfd.readouterr().out
    assert "Run night-6 is unfinished: 1 of 1 shards to do" in shown
    assert "2 earlier run(s): fcn runs" in shown
    assert "night-5" not in shown


def test_the_report_is_of_the_run_that_is_asked_for(nights: Path, capfd: _Captured) -> None:
    """A run by its name, or all of them; as text, or as the manifests' JSON."""
    assert main(["report", str(nights), "--run-id", "night-5"]) == 0
    assert "Run night-5: 3 of 4 images have a mask" in capfd.readouterr().out
    assert main(["report", str(nights), "--all"]) == 0
    shown = capfd.readouterr().out
    assert all(f"Run night-{number}" in shown for number in (2, 5, 6))
    assert main(["report", str(nights), "--all", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert [one["run_id"] for one in found] == ["night-2", "night-5", "night-6"]
    assert main(["report", str(nights), "--run-id", "night-2", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["num_ok"] == 2


def test_the_page_of_a_run_is_written_anew(nights: Path, capfd: _Captured) -> None:
    """--html writes report.html of the run that is asked for, with pictures or without them."""
    path = nights / "runs/night-5/report.html"
    assert path.read_text() == "4 images"
    assert main(["report", str(nights), "--run-id", "night-5", "--html"]) == 0
    assert capfd.readouterr().out == f"file://{path}\n"
    page = path.read_text()
    assert page.count('alt="photograph"') >= 3
    assert "last finished run of the same input: night-2" in page
    arguments = ["--run-id", "night-5", "--html", "--report-images", "0"]
    assert main(["report", str(nights), *arguments]) == 0
    assert "data:image" not in path.read_text()
    assert main(["report", str(nights), "--html"]) == 0
    assert "night-6 is unfinished and has no report yet" in capfd.readouterr().out


_READERS = [
    ["runs"],
    ["report"],
    ["verify"],
    ["verify", "--repair"],
    ["clean"],
    ["clean", "--keep-newest", "--no-dry-run"],
    ["select", "--to", "chosen.parquet"],
    ["export", "--format", "voc", "--to", "exported"],
]


@pytest.mark.parametrize("words", _READERS, ids=" ".join)
def test_a_place_that_is_no_output_is_refused(
    tmp_path: Path, words: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Every command ends with 3 and asks for the name, where nothing is and where other things are.

    A mistyped output would else look like one in which nothing is to do.
    """
    command, *flags = words
    assert main([command, str(tmp_path / "ouptut"), *flags]) == 3
    said = f"output='file://{tmp_path}/ouptut' holds no run; nothing is there; is its name right?"
    assert said in caplog.text
    (tmp_path / "images").mkdir()
    assert main([command, str(tmp_path), *flags]) == 3
    assert "it is no output of `label`, it has images; is its name right?" in caplog.text


@pytest.mark.parametrize("words", [["clean"], ["verify", "--repair"]], ids=" ".join)
@pytest.mark.parametrize("left", ["locks/0123", "history", "runs"])
def test_an_output_without_runs_is_cleaned_and_repaired(
    tmp_path: Path, words: list[str], left: str
) -> None:
    """Where all runs are gone, or none is begun, there is nothing to do, and that is no mistake."""
    (tmp_path / left).mkdir(parents=True)
    command, *flags = words
    assert main([command, str(tmp_path), *flags]) == 0
