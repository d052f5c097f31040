"""Write: masks, then the commit that makes them count; the second attempt changes nothing."""

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.errors import ErrorCode, StoreError
from pipeline.images.masks import decode_mask, encode_mask, make_palette
from pipeline.labelling.class_statistics import count_classes
from pipeline.labelling.publish import publish
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import COMMIT
from pipeline.labelling.verify import verify
from pipeline.labelling.write import Write
from pipeline.store.storage import sha256_hex
from tests.disk_runs import draw_images, label_run, segmented, start_run


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _commit(run: Run, shard: int) -> list[dict[str, Any]]:
    return pq.read_table(pa.BufferReader(run.storage.read(run.commit_uri(shard)))).to_pylist()


def _start(folder: Path, number: int = 5, **fields: Any) -> Run:
    return start_run(folder, draw_images(folder, number), max_shard_images=3, **fields)


def test_a_shard_is_masks_and_a_commit(tmp_path: Path) -> None:
    """A shard leaves a mask per image and one commit record, and hands back its numbers."""
    run = _start(tmp_path, run_id="r")
    before = set(_files(tmp_path / "out"))
    receipt = Write(run, 2)(segmented(run, run.missing()[1]))
    assert (receipt["shard"], receipt["num_images"], receipt["num_failed"]) == (1, 2, 0)
    assert set(_files(tmp_path / "out")) - before == {
        "masks/run=r/image_3.png",
        "masks/run=r/image_4.png",
        "runs/r/commits/shard-000001.parquet",
    }
    assert [task["shard"] for task in run.missing()] == [0]


def test_the_files_of_a_run_are_exactly_these(tmp_path: Path) -> None:
    """A finished run has left these files and no other."""
    source = draw_images(tmp_path, 5)
    (source / "sub").mkdir()
    (source / "sub/broken.jpg").write_bytes(b"<html>")
    run = start_run(tmp_path, source, max_shard_images=3, run_id="r")
    label_run(run)
    publish(run, str)
    [plan] = run.record.plan
    assert set(_files(tmp_path / "out")) == {
        *(f"masks/run=r/image_{number}.png" for number in range(5)),
        "runs/r/run.json",
        f"runs/r/plan/{plan.file}",
        "runs/r/commits/shard-000000.parquet",
        "runs/r/commits/shard-000001.parquet",
        "runs/r/sections/00000.json",
        "runs/r/manifest.json",
        "runs/r/report.html",
        "runs/r/_SUCCESS",
        "images/run=r/part-00000.parquet",
        "class_statistics/run=r/part-00000.parquet",
    }


def test_the_commit_says_what_was_written(tmp_path: Path) -> None:
    """A row of the commit record holds hash, size and counts of the mask that stands there."""
    run = _start(tmp_path, 1)
    label_run(run)
    [row] = _commit(run, 0)
    mask_uri = f"file://{tmp_path}/out/masks/run={run.run_id}/image_0.png"
    png = run.storage.read(mask_uri)
    mask = decode_mask(png)
    assert list(row) == COMMIT.names
    assert (row["status"], row["error_code"], row["error_message"]) == ("ok", None, None)
    assert (row["mask_uri"], row["mask_sha256"]) == (mask_uri, sha256_hex(png))
    assert (row["height"], row["width"]) == mask.shape == (5, 7)
    assert {one["class_id"]: one["pixel_count"] for one in row["classes"]} == count_classes(mask)
    assert (row["shard"], row["run_id"]) == (0, run.run_id)
    assert row["fingerprint"] == run.record.network.fingerprint
    assert row["labelled_at"] >= run.record.created_at.replace(microsecond=0)


def test_a_bad_image_is_a_row_without_a_mask(tmp_path: Path) -> None:
    """A failed image is committed with its reason, without mask, hash or statistics."""
    source = draw_images(tmp_path, 2)
    (source / "image_0.png").write_bytes(b"")
    run = start_run(tmp_path, source)
    (source / "image_1.png").unlink()
    [receipt] = label_run(run)
    assert (receipt["num_images"], receipt["num_failed"]) == (2, 2)
    assert receipt["errors"] == {ErrorCode.TRUNCATED: 1, ErrorCode.NOT_FOUND: 1}
    rows = _commit(run, 0)
    assert [(row["status"], row["error_code"]) for row in rows] == [
        ("error", "truncated"),
        ("error", "not_found"),
    ]
    for row in rows:
        assert row["error_message"]
        assert [row["mask_uri"], row["mask_sha256"], row["mean_confidence"]] == [None] * 3
        assert row["classes"] == []
    assert not (tmp_path / "out/masks").exists()


def test_a_second_attempt_changes_nothing(tmp_path: Path) -> None:
    """Writing a shard again leaves every byte as it is and gives the same receipt."""
    run = _start(tmp_path)
    [first, _] = run.missing()
    shard = segmented(run, first)
    receipt = Write(run, 2)(shard)
    before = _files(tmp_path / "out")
    assert Write(run, 1)(shard) == receipt
    assert _files(tmp_path / "out") == before


def test_the_first_commit_counts(tmp_path: Path) -> None:
    """An attempt that finds a commit hands back what stands there, not what it has found itself."""
    run = _start(tmp_path)
    [first, _] = run.missing()
    receipt = Write(run, 2)(segmented(run, first))
    before = _files(tmp_path / "out")
    (tmp_path / "in/image_0.png").unlink()
    late = segmented(run, first)
    assert late["images"][0]["error_code"] == ErrorCode.NOT_FOUND
    assert Write(run, 2)(late) == receipt
    assert (receipt["num_images"], receipt["num_failed"]) == (3, 0)
    assert _files(tmp_path / "out") == before


def test_statistics_follow_the_mask_that_stands(tmp_path: Path) -> None:
    """An attempt that meets another attempt's mask commits that mask's hash and counts.

    The confidences are its own; a class that it has not seen itself has none.
    """
    (tmp_path / "in").mkdir()
    Image.new("RGB", (7, 5), (3, 0, 0)).save(tmp_path / "in/image.png")
    run = start_run(tmp_path, tmp_path / "in")
    [task] = run.missing()
    other = np.full((5, 7), 3, np.uint8)
    other[0, 0] = 2
    png = encode_mask(other, make_palette([(0, 0, 0)]), 1)
    uri = f"{run.masks_folder}/image.png"
    run.storage.write(uri, png)
    Write(run, 2)(segmented(run, task))
    [row] = _commit(run, 0)
    assert run.storage.read(uri) == png
    assert row["mask_sha256"] == sha256_hex(png)
    assert row["classes"] == [
        {"class_id": 2, "pixel_count": 1, "mean_confidence": None},
        {"class_id": 3, "pixel_count": 34, "mean_confidence": 0.5},
    ]
    manifest = publish(run, str)
    assert [label.num_pixels for label in manifest.classes] == [0, 0, 1, 34]
    assert not verify(run, 2).breaks


def test_an_own_mask_of_an_earlier_attempt_is_no_conflict(tmp_path: Path) -> None:
    """An attempt that was killed before its commit is completed by the next, masks untouched."""
    run = _start(tmp_path, 3)
    [task] = run.missing()
    shard = segmented(run, task)
    uri = f"{run.masks_folder}/image_1.png"
    png = shard["images"][1]["png"]
    assert png is not None
    run.storage.create(uri, png)
    written = os.stat(uri.removeprefix("file://")).st_ino
    Write(run, 2)(shard)
    assert os.stat(uri.removeprefix("file://")).st_ino == written
    assert [one["mean_confidence"] for one in _commit(run, 0)[1]["classes"]] == [
        one["mean_confidence"] for one in shard["images"][1]["classes"]
    ]


def test_two_attempts_never_have_the_same_commit(tmp_path: Path) -> None:
    """Commit records of two attempts differ in a write-id, so that each knows its own."""
    shards = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        run = _start(tmp_path / name, 1)
        label_run(run)
        metadata = pq.read_schema(pa.BufferReader(run.storage.read(run.commit_uri(0)))).metadata
        shards.append(metadata[b"write_id"])
    assert shards[0] != shards[1]


def test_without_its_masks_a_shard_is_not_committed(tmp_path: Path) -> None:
    """Where a mask can't be written the error is raised and no commit record appears."""
    run = _start(tmp_path, 3)
    (tmp_path / "out/masks").write_bytes(b"in the way")
    [task] = run.missing()
    with pytest.raises(StoreError):
        Write(run, 2)(segmented(run, task))
    assert run.committed() == []


@pytest.mark.parametrize("has_links", [True, False])
@pytest.mark.parametrize("name", ["what?.png", "a?/b.png"])
def test_a_name_that_the_disk_refuses_costs_its_own_image(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_links: bool
) -> None:
    """FAT and SMB hold no `?`: that mask's row says so, and the others stand, twice over."""
    source = draw_images(tmp_path, 3)
    (source / name).parent.mkdir(exist_ok=True)
    (source / "image_1.png").rename(source / name)

    def refusing(make: Callable[..., None]) -> Callable[..., None]:
        def named(*given: Any, **how: Any) -> None:
            path = [one for one in given if not isinstance(one, int)][-1]
            if "?" in os.path.basename(path):
                raise OSError(errno.EINVAL, "Invalid argument", path)
            make(*given, **how)

        return named

    for call in ("link", "replace", "mkdir"):
        monkeypatch.setattr(os, call, refusing(getattr(os, call)))
    run = start_run(tmp_path, source)
    if not has_links:
        run = replace(run, storage=replace(run.storage, conditional_put=False))
    label_run(run)
    label_run(run)
    manifest = publish(run, lambda _: "")

    assert (manifest.num_ok, manifest.errors) == (2, {"name_refused": 1})
    assert not verify(run, 2).breaks
    rows = [row for table in run.commits() for row in table.to_pylist()]
    [row] = [row for row in rows if row["status"] == "error"]
    assert "the disk can't hold such a name (Invalid argument)" in row["error_message"]
    assert row["mask_uri"] is row["classes"] is row["height"] is None


def test_a_row_that_no_table_can_hold_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What Arrow refuses costs that image a row (`failed`); the run is whole and verified."""
    run = _start(tmp_path, run_id="r")
    [first, second] = run.missing()
    shard = segmented(run, first)
    shard["images"][1]["height"] = 1 << 40
    receipt = Write(run, 2)(shard)
    assert (receipt["num_images"], receipt["errors"]) == (3, {"failed": 1})
    rows = _commit(run, 0)
    assert [row["status"] for row in rows] == ["ok", "error", "ok"]
    assert rows[1]["error_message"].startswith("ArrowInvalid: ")
    assert (rows[1]["mask_uri"], rows[1]["height"], rows[1]["classes"]) == (None, None, None)
    assert caplog.text.count("Traceback") == 1
    Write(run, 2)(segmented(run, second))
    publish(run, str)
    assert not verify(run, 2).breaks


def test_rows_that_no_table_can_hold_are_not_a_run(tmp_path: Path) -> None:
    """Where every row of many fails, the shard is not committed and the run ends."""
    run = start_run(tmp_path, draw_images(tmp_path, 9), run_id="r")
    shard = segmented(run, run.missing()[0])
    for image in shard["images"]:
        image["mean_confidence"] = "much"  # type: ignore[typeddict-item]
    with pytest.raises(RuntimeError, match="shard 0: all 9 images"):
        Write(run, 2)(shard)
    assert len(run.missing()) == 1
