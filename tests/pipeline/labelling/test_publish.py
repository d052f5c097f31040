"""Publish: tables and totals from the commit records, the same whenever it is done."""

import dataclasses
import io
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ErrorCode, InputError, StoreError
from pipeline.images.masks import decode_mask
from pipeline.labelling import report
from pipeline.labelling.class_statistics import count_classes
from pipeline.labelling.history import History
from pipeline.labelling.publish import publish
from pipeline.labelling.records import Manifest
from pipeline.labelling.runs import Run, commit_name
from pipeline.labelling.schema import CLASS_STATISTICS, IMAGES
from pipeline.labelling.verify import verify
from pipeline.store.entry import Entry
from pipeline.store.storage import Storage, sha256_hex
from tests.disk_runs import draw_images, label_run, start_run


def _labelled(folder: Path, **fields: Any) -> Run:
    """Label five images and one broken file in shards of two; not published."""
    source = draw_images(folder, 5)
    (source / "broken.jpg").write_bytes(b"<html>")
    run = start_run(folder, source, max_shard_images=2, **fields)
    label_run(run)
    return run


def _render(manifest: Manifest) -> str:
    return f"{manifest.num_images} <images>"


def _fail(_: Manifest) -> str:
    raise StoreError(ErrorCode.TIMEOUT, "<silence>")


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _table(run: Run, name: str) -> pa.Table:
    data = run.storage.read(f"{run.output}/{name}/run={run.run_id}/part-00000.parquet")
    return pq.read_table(pa.BufferReader(data))


def _masks(run: Run) -> dict[str, dict[int, int]]:
    """Count the classes of every mask that is stored, by its name."""
    return {
        entry.uri.rpartition("/")[2]: count_classes(decode_mask(run.storage.read(entry.uri)))
        for entry in run.storage.walk(run.masks_folder)
    }


def test_every_planned_image_has_one_row(tmp_path: Path) -> None:
    """The images table has the planned images in order, with the columns of the schema."""
    run = _labelled(tmp_path)
    publish(run, _render)
    table = _table(run, "images")
    assert table.schema.equals(IMAGES, check_metadata=True)
    assert table["key"].to_pylist() == ["broken.jpg", *(f"image_{n}.png" for n in range(5))]
    assert table["status"].to_pylist() == ["error", *["ok"] * 5]
    assert table["error_code"].to_pylist() == ["unsupported_format", *[None] * 5]
    assert table["shard"].to_pylist() == [0, 0, 1, 1, 2, 2]


def test_the_statistics_are_those_of_the_masks(tmp_path: Path) -> None:
    """Every class of every mask has one row; counts and fractions are the mask's."""
    run = _labelled(tmp_path)
    publish(run, _render)
    table = _table(run, "class_statistics")
    assert table.schema.equals(CLASS_STATISTICS, check_metadata=True)
    rows = table.to_pylist()
    masks = _masks(run)
    assert [(row["key"], row["class_id"], row["pixel_count"]) for row in rows] == [
        (name, index, count) for name in sorted(masks) for index, count in masks[name].items()
    ]
    for row in rows:
        total = sum(masks[row["key"]].values())
        assert row["pixel_fraction"] == row["pixel_count"] / total
        assert row["class_name"] == f"class_{row['class_id']}"
        assert row["mean_confidence"] == (1 + row["class_id"]) / 8


def test_the_totals_are_those_of_the_masks(tmp_path: Path) -> None:
    """The manifest's numbers are what counting the stored masks gives."""
    run = _labelled(tmp_path)
    manifest = publish(run, _render)
    masks = _masks(run)
    assert (manifest.num_images, manifest.num_ok, manifest.num_failed) == (6, 5, 1)
    assert (manifest.num_shards, manifest.num_skipped) == (3, 0)
    assert manifest.errors == {"unsupported_format": 1}
    assert manifest.num_pixels == sum(sum(counts.values()) for counts in masks.values())
    assert [(label.id, label.num_pixels, label.num_images) for label in manifest.classes] == [
        (
            index,
            sum(counts.get(index, 0) for counts in masks.values()),
            sum(index in counts for counts in masks.values()),
        )
        for index in range(4)
    ]
    assert (manifest.fingerprint, manifest.input) == (
        run.record.network.fingerprint,
        f"file://{tmp_path}/in",
    )
    assert manifest.untrained


def test_the_manifest_names_the_tables_by_content(tmp_path: Path) -> None:
    """The manifest that stands in the output lists each table's files with rows and hashes."""
    run = _labelled(tmp_path)
    manifest = publish(run, _render)
    assert run.manifest() == manifest
    for parts, name in (
        (manifest.images, "images"),
        (manifest.class_statistics, "class_statistics"),
    ):
        [part] = parts
        assert part.file == f"{name}/run={run.run_id}/part-00000.parquet"
        assert part.sha256 == sha256_hex(run.storage.read(f"{run.output}/{part.file}"))
        assert part.num_rows == _table(run, name).num_rows


def test_publishing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    """A second publication, as after a kill at any moment, leaves every byte as it was."""
    run = _labelled(tmp_path)
    manifest = publish(run, _render)
    before = _files(tmp_path / "out")
    assert publish(run, _render) == manifest
    assert _files(tmp_path / "out") == before


def _order(name: str) -> int:
    stages = ["images", "class_statistics", "manifest.json", "report.html", "_SUCCESS"]
    return max((index for index, stage in enumerate(stages) if stage in name), default=-1)


def test_a_manifest_that_stands_is_kept(tmp_path: Path) -> None:
    """Tables that a manifest names are never written again, by whatever version of the code."""
    run = _labelled(tmp_path)
    publish(run, _render)
    (tmp_path / f"out/runs/{run.run_id}/_SUCCESS").unlink()
    table = tmp_path / f"out/images/run={run.run_id}/part-00000.parquet"
    before = (table.stat().st_mtime_ns, table.stat().st_ino)
    publish(run, _render)
    assert (table.stat().st_mtime_ns, table.stat().st_ino) == before
    assert run.finished()


@pytest.mark.parametrize(
    "lost", ["_SUCCESS", "report.html", "manifest.json", "images", "class_statistics"]
)
def test_a_publication_that_was_cut_off_is_completed(lost: str, tmp_path: Path) -> None:
    """Whatever a cut-off publication lacks, the next one gives with the same bytes."""
    run = _labelled(tmp_path)
    publish(run, _render)
    before = _files(tmp_path / "out")
    for name in before:
        # A publication writes tables, manifest, report and marker: what comes later is lost too.
        if _order(name) >= _order(lost) and "/commits/" not in name:
            (tmp_path / "out" / name).unlink()
    assert _files(tmp_path / "out") != before
    (tmp_path / f"out/runs/{run.run_id}/_SUCCESS").unlink(missing_ok=True)
    publish(run, _render)
    assert _files(tmp_path / "out") == before


def test_the_marker_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables come before the manifest, the manifest before the report, the marker after all."""
    run = _labelled(tmp_path)
    written = []

    class Recording(Storage):
        def write(self, uri: str, data: bytes) -> None:
            written.append(uri)
            super().write(uri, data)

        def create(self, uri: str, data: bytes) -> bool:
            written.append(uri)
            return super().create(uri, data)

    publish(dataclasses.replace(run, storage=Recording()), _render)
    assert [uri.removeprefix(f"{run.output}/").replace(run.run_id, "r") for uri in written] == [
        "images/run=r/part-00000.parquet",
        "class_statistics/run=r/part-00000.parquet",
        "runs/r/sections/00000.json",
        "runs/r/manifest.json",
        "runs/r/report.html",
        "runs/r/_SUCCESS",
    ]
    assert run.finished()


def test_an_unfinished_run_is_not_published(tmp_path: Path) -> None:
    """A run that lacks a commit is refused and nothing is written."""
    run = _labelled(tmp_path)
    (tmp_path / f"out/runs/{run.run_id}/commits/shard-000001.parquet").unlink()
    before = _files(tmp_path / "out")
    with pytest.raises(StoreError, match=r"1 of 3 shards of run .* the first is shard 1"):
        publish(run, _render)
    assert _files(tmp_path / "out") == before


class _Listing(Storage):
    """Lists what a test says of the commit records."""

    shown = frozenset({2})

    def walk(self, folder_uri: str) -> Iterator[Entry]:
        if not folder_uri.endswith("/commits"):
            return super().walk(folder_uri)
        return iter([Entry(f"{folder_uri}/{commit_name(one)}", "1-1", 1) for one in self.shown])


def test_a_listing_that_leaves_out_commits_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Publishing and verifying read the commits of the plan, whatever a listing shows of them."""
    run = dataclasses.replace(_labelled(tmp_path), storage=_Listing())
    monkeypatch.setattr(Run, "committed", lambda _: [2])
    assert publish(run, _render).num_images == 6
    assert _table(run, "images").num_rows == 6
    verdict = verify(run, 2)
    assert (str(verdict.breaks), verdict.num_missing, verdict.finished) == ("", 0, True)


def test_a_listing_that_invents_a_commit_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard that only a listing calls committed keeps the run from its manifest."""
    run = dataclasses.replace(_labelled(tmp_path), storage=_Listing())
    (tmp_path / f"out/runs/{run.run_id}/commits/shard-000001.parquet").unlink()
    monkeypatch.setattr(_Listing, "shown", frozenset({0, 1, 2}))
    with pytest.raises(StoreError, match="shard 1 has no commit record"):
        publish(run, _render)
    assert run.manifest() is None


def test_a_commit_of_another_number_of_rows_is_named(tmp_path: Path) -> None:
    """A commit record that does not hold its shard's images ends the publication by name."""
    run = _labelled(tmp_path)
    uri = run.commit_uri(1)
    rows = pq.read_table(pa.BufferReader(run.storage.read(uri)))
    buffer = io.BytesIO()
    pq.write_table(rows.slice(1), buffer)
    run.storage.write(uri, buffer.getvalue())
    with pytest.raises(InputError, match=r"shard-000001.parquet holds 1 rows, its shard has 2"):
        publish(run, _render)
    assert run.manifest() is None


def test_a_run_without_masks_is_published(tmp_path: Path) -> None:
    """A run of which every image has failed has rows, no statistics, and totals of zero."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(b"")
    run = start_run(tmp_path, tmp_path / "in")
    label_run(run)
    manifest = publish(run, _render)
    assert (manifest.num_images, manifest.num_ok, manifest.num_pixels) == (1, 0, 0)
    assert manifest.errors == {"truncated": 1}
    assert _table(run, "class_statistics").num_rows == 0


def test_leftovers_of_killed_writes_are_removed(tmp_path: Path) -> None:
    """What killed writes have left beside masks and commits is gone after the publication."""
    run = _labelled(tmp_path)
    left = [
        tmp_path / f"out/masks/run={run.run_id}/.fcn-tmp-0123456789ab",
        tmp_path / f"out/runs/{run.run_id}/commits/.fcn-tmp-ba9876543210",
    ]
    for path in left:
        path.write_bytes(b"half a ma")
    publish(run, _render)
    assert [path.exists() for path in left] == [False, False]


def test_the_report_is_what_was_rendered(tmp_path: Path) -> None:
    """report.html holds what the renderer made of the manifest; the run's own one shows the run."""
    run = _labelled(tmp_path)
    publish(run, _render)
    path = tmp_path / f"out/runs/{run.run_id}/report.html"
    assert path.read_text() == "6 <images>"
    publish(run, partial(report.as_html, run, history=History(run.storage, run.output)))
    text = path.read_text()
    assert "broken.jpg" in text
    assert "unsupported_format" in text
    assert "untrained" in text


def test_a_report_that_cannot_be_made_costs_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever its renderer raises or returns: the run is finished, and a page has its totals."""
    renderers: list[Callable[[Manifest], str]] = [_fail, lambda _: "no text: \udcff"]
    for number, render in enumerate(renderers):
        folder = tmp_path / str(number)
        folder.mkdir()
        run = _labelled(folder)
        publish(run, render)
        page = run.storage.read(f"{run.folder}/report.html").decode()
        assert run.finished()
        assert "5 of 6 images have a mask, 1 failed" in page
    assert caplog.text.count("the page could not be made") == len(renderers)


def test_a_manifest_of_the_version_before_stays_readable(tmp_path: Path) -> None:
    """What held a run back is read by either name, and the report of an old run has it."""
    run = _labelled(tmp_path)
    manifest = publish(run, _render)
    path = tmp_path / f"out/runs/{run.run_id}/manifest.json"
    fields = json.loads(path.read_text())
    assert "held_back_by" not in fields
    del fields["bottleneck"]
    path.write_text(json.dumps({**fields, "held_back_by": "reading"}))
    found = run.manifest()
    assert found is not None
    assert found.bottleneck == "reading"
    assert found.model_copy(update={"bottleneck": manifest.bottleneck}) == manifest
    assert run.run_id in report.as_text(run, found)
