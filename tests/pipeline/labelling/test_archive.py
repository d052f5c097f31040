"""The archive: a start that costs the same after any number of nights, and knows the same."""

import gzip
import json
import logging
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from jobs.__main__ import main
from pipeline.labelling import archive as archive_module
from pipeline.labelling.archive import read_archive, remove_archives, replaced_files
from pipeline.labelling.draft import Draft, draft
from pipeline.labelling.history import History
from pipeline.labelling.publish import publish
from pipeline.labelling.runs import Run, read_shard
from pipeline.labelling.schema import ImageRow, ShardRow
from pipeline.labelling.session import RUNS_APART, open_job
from pipeline.labelling.write import Write
from pipeline.store.storage import Storage
from tests.cut_off import cut_off
from tests.disk_runs import NUM_CLASSES, make_settings, network_record, start_run

_CODES = (None, "timeout", "corrupt", "too_many_bytes", "too_slow")


def _output(folder: Path) -> str:
    return f"file://{folder}/out"


def _history(folder: Path) -> History:
    output = _output(folder)
    return History(Storage(), output, read_archive(Storage(), output))


def _night(folder: Path, number: int) -> Run:
    """Label a new image and those that are asked for again; some of them fail."""
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / f"{number:03d}.jpg").write_bytes(b"x" * (number + 1))
    run = start_run(folder, folder / "in", max_image_s=1 + number % 3)

    def answer(image: ImageRow) -> ImageRow:
        code = _CODES[(int(image["key"][:3]) + number) % len(_CODES)]
        answered = {**image, "error_code": code, "error_message": code, "classes": []}
        return ImageRow(**answered) if code else ImageRow(**answered, png=b"a mask")

    for task in run.missing():
        images = [answer(image) for image in read_shard(run.storage, task)]
        Write(run, 2)(ShardRow(shard=task["shard"], images=images))
    publish(run, str)
    return run


def _draft(folder: Path, history: History, **fields: Any) -> Draft:
    return draft(history, make_settings(folder, folder / "in", **fields), network_record())


def _said(drafted: Draft) -> tuple[object, ...]:
    rows = [row for shard in drafted.shards() for row in shard.to_pylist()]
    return rows, drafted.num_skipped, drafted.num_skipped_failed, drafted.num_retried


def test_runs_share_what_is_said_of_their_network(tmp_path: Path) -> None:
    """A thousand nights of 150 classes cost the memory of one; manifests are as they are."""
    for number in range(3):
        _night(tmp_path, number)
    _history(tmp_path).keep_archive(2)
    plain, archived = History(Storage(), _output(tmp_path)), _history(tmp_path)
    assert archived.archive is not None
    runs = archived.runs()
    assert [run.record for run in runs] == [run.record for run in plain.runs()]
    assert len({id(run.record.network) for run in runs}) == 1
    assert archived.manifests(runs) == plain.manifests(plain.runs())
    assert archived.published(runs) == {run.run_id for run in runs}


def test_a_manifest_that_an_archive_has_damaged_is_read_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As all of an archive, it is derived, and never the truth."""
    for number in range(2):
        _night(tmp_path, number)
    _history(tmp_path).keep_archive(2)
    [path] = (tmp_path / "out/history").glob("*.json.gz")
    archive = json.loads(gzip.decompress(path.read_bytes()))
    archive["runs"][0]["manifest"] = '{"run_id": "another"}'
    path.write_bytes(gzip.compress(json.dumps(archive).encode()))
    found, plain = _history(tmp_path), History(Storage(), _output(tmp_path))
    assert found.archive is not None
    assert found.manifests(found.runs()) == plain.manifests(plain.runs())
    assert "the archive has no manifest of run" in caplog.text


def test_an_archive_of_earlier_versions_is_read(tmp_path: Path) -> None:
    """It has the network and the manifest of each run in full."""
    for number in range(2):
        _night(tmp_path, number)
    _history(tmp_path).keep_archive(2)
    [path] = (tmp_path / "out/history").glob("*.json.gz")
    archive = read_archive(Storage(), _output(tmp_path))
    assert archive is not None
    runs = [
        {"record": one.record.model_dump(mode="json"), "manifest": json.loads(one.manifest)}
        for one in archive.runs
    ]
    earlier = {"runs": runs, "answers": archive.answers}
    path.write_bytes(gzip.compress(json.dumps(earlier).encode()))
    again = read_archive(Storage(), _output(tmp_path))
    assert again is not None
    assert [one.record for one in again.runs] == [one.record for one in archive.runs]
    assert _history(tmp_path).manifests(_history(tmp_path).runs())


def test_large_files_of_answers_are_not_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small ones are made into one when they are many; it stays as it is from then on."""
    monkeypatch.setattr(archive_module, "_ROWS_PER_PART", 4)
    monkeypatch.setattr(archive_module, "_MAX_PARTS", 2)
    seen: list[set[str]] = []
    for number in range(14):
        _night(tmp_path, number)
        _history(tmp_path).keep_archive(1)
        archive = _history(tmp_path).archive
        assert archive is not None
        [parts] = archive.answers.values()
        large = {part for part in parts if archive_module._num_rows(part) >= 4}
        assert len(parts) - len(large) <= 2
        seen.append(large)
    assert all(before <= after for before, after in pairwise(seen))
    assert len(seen[-1]) >= 2
    plain = History(Storage(), _output(tmp_path))
    assert _said(_draft(tmp_path, _history(tmp_path))) == _said(_draft(tmp_path, plain))


def test_it_says_what_the_runs_say(tmp_path: Path) -> None:
    """Whatever is retried under whichever limits, a draft with the archive is one without."""
    for number in range(12):
        _night(tmp_path, number)
        if number % 5 == 4:
            _history(tmp_path).keep_archive(2)
    archived = _history(tmp_path)
    assert archived.archive is not None
    assert len(archived.archive.runs) == 10
    assert {len(parts) for parts in archived.archive.answers.values()} == {2}
    changes: list[dict[str, Any]] = [
        *({}, {"retry_failed": "all"}, {"retry_failed": "none"}, {"max_image_s": 2.5}),
        *({"max_image_bytes": 5}, {"max_image_attempts": 1}, {"max_image_attempts": 9}),
    ]
    for fields in changes:
        plain = History(Storage(), _output(tmp_path))
        assert _said(_draft(tmp_path, _history(tmp_path), **fields)) == _said(
            _draft(tmp_path, plain, **fields)
        )


def test_a_start_asks_as_often_after_many_nights(tmp_path: Path) -> None:
    """With 8 nights more in the archive, a start asks the store for one file more, of answers."""
    asked = []
    for number in range(17):
        _night(tmp_path, number)
        _history(tmp_path).keep_archive(4)
        if number in (8, 16):
            history = _history(tmp_path)
            history.refresh()
            _draft(tmp_path, history)
            asked.append(history.storage.requests["read"])
    assert asked[1] - asked[0] == 2


def test_a_start_after_50_nights_asks_no_more_than_after_5(tmp_path: Path) -> None:
    """With the archive kept as commands keep it: reads, looks and pages of listings."""
    asked = []
    for number in range(50):
        _night(tmp_path, number)
        _history(tmp_path).keep_archive(RUNS_APART)
        if number in (4, 49):
            storage = Storage()
            archive = read_archive(storage, _output(tmp_path))
            _draft(tmp_path, History(storage, _output(tmp_path), archive), run_id="tonight")
            asked.append(storage.requests)
    more = {kind: number - asked[0].get(kind, 0) for kind, number in asked[1].items()}
    assert all(number <= 0 for number in more.values()), more


def test_many_files_of_answers_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a number of files they are written as one, and say what they said."""
    monkeypatch.setattr("pipeline.labelling.archive._MAX_PARTS", 2)
    numbers = []
    for number in range(5):
        _night(tmp_path, number)
        _history(tmp_path).keep_archive(1)
        archive = read_archive(Storage(), _output(tmp_path))
        assert archive is not None
        numbers += [len(parts) for parts in archive.answers.values()]
    assert numbers == [1, 2, 1, 2, 1]
    plain = History(Storage(), _output(tmp_path))
    assert _said(_draft(tmp_path, _history(tmp_path))) == _said(_draft(tmp_path, plain))


@pytest.mark.parametrize("harm", ["damaged archive", "damaged answers", "no answers", "run gone"])
def test_what_is_wrong_with_it_costs_reads_only(
    harm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged archive, or one that names a run that was removed, is left aside with a warning."""
    runs = [_night(tmp_path, number) for number in range(3)]
    _history(tmp_path).keep_archive(3)
    [archive] = (tmp_path / "out/history").glob("*.json.gz")
    [answers] = (tmp_path / "out/history/answers").rglob("*.parquet")
    if harm == "damaged archive":
        archive.write_bytes(archive.read_bytes()[:-20])
    elif harm == "damaged answers":
        answers.write_bytes(answers.read_bytes()[:-20])
    elif harm == "no answers":
        answers.unlink()
    else:
        (tmp_path / "out/runs" / runs[1].run_id / "run.json").unlink()
        (tmp_path / "out/runs" / runs[1].run_id).rename(tmp_path / "elsewhere")
    plain = History(Storage(), _output(tmp_path))
    with caplog.at_level(logging.WARNING):
        found = _said(_draft(tmp_path, _history(tmp_path)))
    assert found == _said(_draft(tmp_path, plain))
    assert "is read" in caplog.text
    _night(tmp_path, 9)
    _history(tmp_path).keep_archive(1)
    plain = History(Storage(), _output(tmp_path))
    assert _said(_draft(tmp_path, _history(tmp_path))) == _said(_draft(tmp_path, plain))


def test_an_archive_that_can_not_be_used_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One lost file of answers costs one start the reads of every run, and no later one."""
    monkeypatch.setattr("pipeline.labelling.session.RUNS_APART", 1)
    for number in range(3):
        _night(tmp_path, number)
    _history(tmp_path).keep_archive(1)
    [answers] = (tmp_path / "out/history/answers").rglob("*.parquet")
    answers.unlink()
    job = open_job(make_settings(tmp_path, tmp_path / "in", num_classes=NUM_CLASSES))
    found = _said(_draft(tmp_path, job.history))
    job.archive()
    history = _history(tmp_path)
    assert _said(_draft(tmp_path, history)) == found
    assert history.archive is not None
    assert len(history.archive.runs) == 3


def test_what_was_taken_back_meanwhile_is_not_archived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that `verify --repair` unfinishes while another command works is in no archive."""
    monkeypatch.setattr("pipeline.labelling.session.RUNS_APART", 1)
    runs = [_night(tmp_path, number) for number in range(2)]
    job = open_job(make_settings(tmp_path, tmp_path / "in", num_classes=NUM_CLASSES))
    assert job.history.finished(job.history.runs()) == [True, True]
    for uri in (runs[0].success_uri, runs[0].manifest_uri):
        Storage().remove(uri)
    job.archive()
    archive = read_archive(Storage(), _output(tmp_path))
    assert archive is not None
    assert archive.run_ids == {runs[1].run_id}


def test_archives_can_be_removed(tmp_path: Path) -> None:
    """Without them the next start reads the runs, and the next archive is whole."""
    _night(tmp_path, 0)
    _history(tmp_path).keep_archive(1)
    remove_archives(Storage(), _output(tmp_path))
    assert _history(tmp_path).archive is None
    _history(tmp_path).keep_archive(1)
    assert _history(tmp_path).archive is not None


def test_earlier_archives_are_cleaned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`clean` removes what the two newest have no use for, and a start knows the same without."""
    monkeypatch.setattr(archive_module, "_MAX_PARTS", 2)
    for number in range(7):
        _night(tmp_path, number)
        _history(tmp_path).keep_archive(1)
    before, said = _files(tmp_path), _said(_draft(tmp_path, _history(tmp_path)))
    archives = sorted(name for name in before if name.endswith(".json.gz"))
    assert len(archives) == 7

    assert main(["clean", str(tmp_path / "out")]) == 0
    assert "have replaced can go; --no-dry-run removes them" in capfd.readouterr().out
    assert _files(tmp_path) == before

    assert main(["clean", str(tmp_path / "out"), "--no-dry-run"]) == 0
    left = _files(tmp_path)
    assert sorted(name for name in left if name.endswith(".json.gz")) == archives[-2:]
    kept = [read_archive(Storage(), _output(tmp_path))]
    assert len(before) - len(left) > 5
    (tmp_path / "out/history" / archives[-1]).unlink()
    kept.append(read_archive(Storage(), _output(tmp_path)))
    for archive in kept:
        assert archive is not None
        assert {part for parts in archive.answers.values() for part in parts} <= left
    assert _said(_draft(tmp_path, _history(tmp_path))) == said


def test_a_clean_that_was_cut_off_is_ended_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it was cut off, the next one leaves what one that was not would have left."""
    monkeypatch.setattr(archive_module, "_MAX_PARTS", 2)
    for number in range(6):
        _night(tmp_path, number)
        _history(tmp_path).keep_archive(1)
    shutil.copytree(tmp_path / "out", tmp_path / "before")
    assert main(["clean", str(tmp_path / "out"), "--no-dry-run"]) == 0
    left = _files(tmp_path)
    for allowed in range(len(replaced_files(Storage(), f"file://{tmp_path}/before"))):
        shutil.rmtree(tmp_path / "out")
        shutil.copytree(tmp_path / "before", tmp_path / "out")
        with cut_off("remove", allowed):
            main(["clean", str(tmp_path / "out"), "--no-dry-run"])
        assert main(["clean", str(tmp_path / "out"), "--no-dry-run"]) == 0
        assert _files(tmp_path) == left


def _files(folder: Path) -> set[str]:
    history = folder / "out/history"
    return {str(path.relative_to(history)) for path in history.rglob("*") if path.is_file()}


def test_a_damaged_archive_keeps_what_it_may_need(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing of the history goes then, and the message names the file."""
    for number in range(4):
        _night(tmp_path, number)
        _history(tmp_path).keep_archive(1)
    newest = max((tmp_path / "out/history").glob("*.json.gz"))
    newest.write_bytes(b"torn")
    before = _files(tmp_path)
    assert main(["clean", str(tmp_path / "out"), "--no-dry-run"]) == 0
    assert f"nothing of it can go: {newest.as_uri()} can't be used" in capfd.readouterr().out
    assert _files(tmp_path) == before


def test_a_damaged_archive_that_newer_ones_have_replaced_goes(tmp_path: Path) -> None:
    """Nobody reads it again, and it keeps no other file from going."""
    for number in range(4):
        _night(tmp_path, number)
        _history(tmp_path).keep_archive(1)
    oldest, *_, newest = sorted((tmp_path / "out/history").glob("*.json.gz"))
    oldest.write_bytes(b"torn")
    assert main(["clean", str(tmp_path / "out"), "--no-dry-run"]) == 0
    assert not oldest.exists()
    assert newest.exists()
    assert len(list((tmp_path / "out/history").glob("*.json.gz"))) == 2


def test_a_run_that_goes_while_others_plan_is_left_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`clean` may remove a run that a draft has looked at already: it is looked at again."""
    runs = [_night(tmp_path, number) for number in range(2)]
    history = History(Storage(), _output(tmp_path))
    assert all(history.manifests(history.runs()))
    shutil.rmtree(tmp_path / "out/images" / f"run={runs[0].run_id}")
    (tmp_path / "out/runs" / runs[0].run_id / "run.json").unlink()

    found = _said(_draft(tmp_path, history))

    assert "so each is read again" in caplog.text
    assert found == _said(_draft(tmp_path, History(Storage(), _output(tmp_path))))
