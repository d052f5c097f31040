"""Verify: a whole run passes, and every kind of damage is found and named."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ErrorCode, StoreError
from pipeline.images.masks import decode_mask, encode_mask, make_palette
from pipeline.labelling.breaks import Breaks
from pipeline.labelling.history import History
from pipeline.labelling.publish import publish
from pipeline.labelling.runs import Run
from pipeline.labelling.verify import Verdict, verify
from pipeline.store.storage import Storage
from tests.disk_runs import draw_images, label_run, start_run


def _labelled(folder: Path, number: int = 4) -> Run:
    """Label some images and one broken file in shards of three; not published."""
    source = draw_images(folder, number)
    (source / "broken.jpg").write_bytes(b"<html>")
    run = start_run(folder, source, max_shard_images=3)
    label_run(run)
    return run


def _published(folder: Path, number: int = 4) -> Run:
    run = _labelled(folder, number)
    publish(run, str)
    return run


def _verify(run: Run) -> Verdict:
    return verify(run, threads=2)


def _path(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


# Damages


def _mask(run: Run, number: int = 0) -> Path:
    return _path(f"{run.masks_folder}/image_{number}.png")


def _rewrite_mask(run: Run, change: Callable[[np.ndarray], np.ndarray]) -> None:
    mask = change(decode_mask(_mask(run).read_bytes()).copy())
    _mask(run).write_bytes(encode_mask(mask, make_palette([(0, 0, 0)]), 1))


def _one_pixel(mask: np.ndarray) -> np.ndarray:
    mask[2, 3] = (mask[2, 3] + 1) % 4
    return mask


def _rewrite_rows(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change the rows of a Parquet file in place."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, table.schema), buffer)
    path.write_bytes(buffer.getvalue())


def _rewrite_commit(run: Run, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change the first commit record: broken.jpg, image_0.png, image_1.png."""
    _rewrite_rows(_path(run.commit_uri(0)), change)


def _rewrite_table(run: Run, name: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
    _rewrite_rows(_path(f"{run.output}/{name}/run={run.run_id}/part-00000.parquet"), change)


def _rewrite_manifest(run: Run, change: Callable[[dict[str, Any]], object]) -> None:
    path = _path(run.manifest_uri)
    fields = json.loads(path.read_bytes())
    change(fields)
    path.write_text(json.dumps(fields))


def _set(row: int, name: str, value: object) -> Callable[[list[dict[str, Any]]], None]:
    return lambda rows: rows[row].__setitem__(name, value)


def _add_pixel(rows: list[dict[str, Any]]) -> None:
    rows[1]["classes"][0]["pixel_count"] += 1


def _move_pixel(rows: list[dict[str, Any]]) -> None:
    rows[1]["classes"][0]["pixel_count"] += 1
    rows[1]["classes"][1]["pixel_count"] -= 1


_IMAGES = "images table differs from the commits"
_STATISTICS = "class_statistics differs from the commits"
_MANIFEST = "manifest differs from the commits"
_SHA = "table file has another sha256"

_DAMAGES: dict[str, tuple[Callable[[Run], object], dict[str, int]]] = {
    "a mask is deleted": (
        lambda run: _mask(run).unlink(),
        {"mask is missing": 1},
    ),
    "a mask is cut off": (
        lambda run: _mask(run).write_bytes(_mask(run).read_bytes()[:-30]),
        {"mask is unreadable": 1},
    ),
    "a mask is replaced by another": (
        lambda run: _mask(run).write_bytes(_mask(run, 3).read_bytes()),
        {"mask has another sha256": 1, "class counts differ from the mask": 1},
    ),
    "one pixel of a mask is changed": (
        lambda run: _rewrite_mask(run, _one_pixel),
        {"mask has another sha256": 1, "class counts differ from the mask": 1},
    ),
    "a mask is turned": (
        lambda run: _rewrite_mask(run, lambda mask: mask.T),
        {"mask has another sha256": 1, "mask has another size than its image": 1},
    ),
    "a mask has other colours": (
        lambda run: _rewrite_mask(run, lambda mask: mask),
        {"mask has another sha256": 1},
    ),
    "a hash in a commit is changed": (
        lambda run: _rewrite_commit(run, _set(1, "mask_sha256", "0" * 64)),
        {"mask has another sha256": 1, _IMAGES: 1},
    ),
    "a count in a commit is changed": (
        lambda run: _rewrite_commit(run, _add_pixel),
        {
            "class counts differ from the mask": 1,
            "class counts do not sum to the pixels": 1,
            _MANIFEST: 1,
            _STATISTICS: 1,
        },
    ),
    "a pixel in a commit is given to another class": (
        lambda run: _rewrite_commit(run, _move_pixel),
        {"class counts differ from the mask": 1, _MANIFEST: 1, _STATISTICS: 2},
    ),
    "a failed image has an unknown reason": (
        lambda run: _rewrite_commit(run, _set(0, "error_code", "bad_luck")),
        {"failed image without a known reason": 1, _MANIFEST: 2, _IMAGES: 1},
    ),
    "a failed image has no message": (
        lambda run: _rewrite_commit(run, _set(0, "error_message", "")),
        {"failed image without a known reason": 1, _MANIFEST: 1, _IMAGES: 1},
    ),
    "a failed image has a mask": (
        lambda run: _rewrite_commit(run, _set(0, "mask_uri", "file:///a.png")),
        {"failed image with a mask or statistics": 1, "row differs from the plan": 1, _IMAGES: 1},
    ),
    "a row of a table is changed": (
        lambda run: _rewrite_table(run, "images", _set(2, "width", 8)),
        {_SHA: 1, _IMAGES: 1},
    ),
    "the last row of a table is removed": (
        lambda run: _rewrite_table(run, "images", lambda rows: rows.pop()),
        {_SHA: 1, _IMAGES: 1},
    ),
    "a row of a table is doubled": (
        lambda run: _rewrite_table(run, "images", lambda rows: rows.append(rows[-1])),
        {_SHA: 1, "images has a row that no commit knows": 1},
    ),
    "a statistic is changed": (
        lambda run: _rewrite_table(run, "class_statistics", _set(1, "pixel_fraction", 0.5)),
        {_SHA: 1, _STATISTICS: 1},
    ),
    "a statistic is removed": (
        lambda run: _rewrite_table(run, "class_statistics", lambda rows: rows.pop()),
        {_SHA: 1, _STATISTICS: 1},
    ),
    "a statistic is doubled": (
        lambda run: _rewrite_table(run, "class_statistics", lambda rows: rows.append(rows[-1])),
        {_SHA: 1, "class_statistics has a row that no commit knows": 1},
    ),
    "a table is written again": (
        lambda run: _rewrite_table(run, "images", lambda _: None),
        {_SHA: 1},
    ),
    "a table is deleted": (
        lambda run: _path(f"{run.output}/images/run={run.run_id}/part-00000.parquet").unlink(),
        {"file is missing": 1, _IMAGES: 5},
    ),
    "a table is garbage": (
        lambda run: _path(f"{run.output}/images/run={run.run_id}/part-00000.parquet").write_bytes(
            b"garbage"
        ),
        {"file is unreadable": 1, _IMAGES: 5},
    ),
    "a total is changed": (
        lambda run: _rewrite_manifest(run, lambda fields: fields.update(num_pixels=1)),
        {_MANIFEST: 1},
    ),
    "several totals are changed": (
        lambda run: _rewrite_manifest(
            run,
            lambda fields: fields.update(
                num_images=6, num_ok=5, num_failed=0, num_shards=9, errors={"corrupt": 1}
            ),
        ),
        {_MANIFEST: 5},
    ),
    "the pixels of a class are changed": (
        lambda run: _rewrite_manifest(
            run, lambda fields: fields["classes"][1].update(num_pixels=1)
        ),
        {_MANIFEST: 1},
    ),
    "the images of a class are changed": (
        lambda run: _rewrite_manifest(
            run, lambda fields: fields["classes"][1].update(num_images=1)
        ),
        {_MANIFEST: 1},
    ),
    "the cost is changed": (
        lambda run: _rewrite_manifest(run, lambda fields: fields["work"].update(read_bytes=1)),
        {_MANIFEST: 1},
    ),
    "a failed image is left out": (
        lambda run: _rewrite_manifest(run, lambda fields: fields["failed"].pop()),
        {_MANIFEST: 1},
    ),
    "the rows of a table are changed": (
        lambda run: _rewrite_manifest(run, lambda fields: fields["images"][0].update(num_rows=1)),
        {_MANIFEST: 1},
    ),
}


def test_a_whole_run_passes(tmp_path: Path) -> None:
    """A finished run has no breaks, and every mask was read."""
    verdict = _verify(_published(tmp_path))
    assert (str(verdict.breaks), bool(verdict.breaks)) == ("", False)
    assert (verdict.num_masks, verdict.num_missing, verdict.finished) == (4, 0, True)


@pytest.mark.parametrize("name", _DAMAGES)
def test_every_damage_is_found(name: str, tmp_path: Path) -> None:
    """Each damage is reported as what it is, as often as it is, and as nothing else."""
    run = _published(tmp_path)
    damage, kinds = _DAMAGES[name]
    damage(run)
    assert dict(_verify(run).breaks.numbers) == kinds


def test_a_row_that_was_not_planned_is_found(tmp_path: Path) -> None:
    """A commit record with a row too many contradicts plan, totals and table."""
    run = _published(tmp_path)
    _rewrite_commit(run, lambda rows: rows.append({**rows[0], "image_id": "x", "key": "extra.jpg"}))
    breaks = _verify(run).breaks
    assert breaks.first["row without a planned image, or second row"] == ["extra.jpg"]
    assert breaks.numbers[_MANIFEST] == 7
    assert breaks.numbers[_IMAGES] > 0


def test_an_image_with_two_rows_is_found(tmp_path: Path) -> None:
    """A commit record that answers for one image twice is reported with its name."""
    run = _labelled(tmp_path)
    _rewrite_commit(run, lambda rows: rows.append(rows[1]))
    breaks = _verify(run).breaks
    assert breaks.first == {"row without a planned image, or second row": ["image_0.png"]}


def test_a_lost_row_is_found(tmp_path: Path) -> None:
    """A commit record that lacks a planned image is reported with the image's name."""
    run = _labelled(tmp_path)
    _rewrite_commit(run, lambda rows: rows.pop())
    assert _verify(run).breaks.first == {"planned image without a row": ["image_1.png"]}


def test_a_lost_commit_is_found(tmp_path: Path) -> None:
    """A commit record that has vanished contradicts the manifest."""
    run = _published(tmp_path)
    _path(run.commit_uri(1)).unlink()
    verdict = _verify(run)
    assert verdict.num_missing == 1
    assert verdict.breaks.first["manifest in spite of missing commits"] == ["1 shards"]


def test_breaks_name_what_is_broken(tmp_path: Path) -> None:
    """A break says which image, what was found and what was committed."""
    run = _published(tmp_path)
    _rewrite_mask(run, lambda mask: mask.T)
    assert _verify(run).breaks.first["mask has another size than its image"] == [
        "image_0.png: (7, 5), committed (5, 7)"
    ]


def test_at_most_ten_of_a_kind_are_named(tmp_path: Path) -> None:
    """Of twelve missing masks ten are named and twelve are counted."""
    run = _published(tmp_path, 12)
    for number in range(12):
        _mask(run, number).unlink()
    breaks = _verify(run).breaks
    assert breaks.numbers == {"mask is missing": 12}
    assert len(breaks.first["mask is missing"]) == 10
    lines = str(breaks).splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("mask is missing: 12", "  ... and 2 more", 12)


def test_breaks_of_several_kinds_are_listed_together() -> None:
    """Each kind is a line with its number, and below it what is broken."""
    breaks = Breaks()
    assert not breaks
    for kind, what in (("a", "1"), ("b", "2"), ("a", "3")):
        breaks.add(kind, what)
    assert breaks
    assert str(breaks) == "a: 2\n  1\n  3\nb: 1\n  2"


def test_an_unfinished_run_is_unfinished_and_whole(tmp_path: Path) -> None:
    """Shards without a commit are no break; what is committed is verified all the same."""
    run = _labelled(tmp_path)
    _path(run.commit_uri(1)).unlink()
    verdict = _verify(run)
    assert (verdict.finished, verdict.num_missing, verdict.num_masks) == (False, 1, 2)
    assert not verdict.breaks
    _mask(run).unlink()
    assert _verify(run).breaks.numbers == {"mask is missing": 1}


def test_a_run_that_has_not_begun_is_unfinished(tmp_path: Path) -> None:
    """A plan without any commit is unfinished and whole."""
    run = start_run(tmp_path, draw_images(tmp_path, 2))
    verdict = _verify(run)
    assert (verdict.finished, verdict.num_missing, bool(verdict.breaks)) == (False, 1, False)


@pytest.mark.parametrize("names", [("_SUCCESS",), ("_SUCCESS", "manifest.json")])
def test_without_its_last_files_a_run_is_unfinished(names: tuple[str], tmp_path: Path) -> None:
    """A publication that was cut off is unfinished, which is no break."""
    run = _published(tmp_path)
    for name in names:
        _path(f"{run.folder}/{name}").unlink()
    verdict = _verify(run)
    assert (verdict.finished, verdict.num_missing, bool(verdict.breaks)) == (False, 0, False)


def test_a_mark_of_the_end_without_a_manifest_is_a_break(tmp_path: Path) -> None:
    """No command goes on with such a run by itself, so that it is no unfinished one."""
    run = _published(tmp_path)
    _path(run.manifest_uri).unlink()
    verdict = _verify(run)
    assert (verdict.finished, dict(verdict.breaks.numbers)) == (False, {"file is missing": 1})


def test_verifying_changes_nothing(tmp_path: Path) -> None:
    """Verify reads only, also where something is broken."""
    run = _published(tmp_path)
    _mask(run).unlink()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    _verify(run)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


class _Silent(Storage):
    """A store that does not answer for masks."""

    def read(self, uri: str) -> bytes:
        if "/masks/" in uri:
            raise StoreError(ErrorCode.TIMEOUT, f"{uri}: no answer")
        return super().read(uri)


def test_a_store_that_does_not_answer_proves_nothing(tmp_path: Path) -> None:
    """A time-out is raised: it is neither a break nor a proof."""
    run = _published(tmp_path)
    with pytest.raises(StoreError, match="no answer"):
        _verify(Run(_Silent(), run.output, run.record))


def test_a_copy_is_verified_where_it_is(tmp_path: Path) -> None:
    """The masks of a copied output are read from the copy: without them it is broken."""
    run = _published(tmp_path)
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    copy = History(Storage(), f"file://{tmp_path}/copy").runs()[0]
    assert not verify(copy, 2).breaks
    shutil.rmtree(tmp_path / "copy/masks")
    assert set(verify(copy, 2).breaks.numbers) == {"mask is missing"}
    assert not verify(run, 2).breaks


def test_a_table_beside_the_manifest_is_found(tmp_path: Path) -> None:
    """A Parquet file that somebody laid beside a run's tables is named."""
    run = _published(tmp_path)
    folder = tmp_path / f"out/images/run={run.run_id}"
    shutil.copy(folder / "part-00000.parquet", folder / "part-00001.parquet")
    assert verify(run, 2).breaks.numbers == {"table file that no manifest names": 1}


def test_masks_that_no_row_names_are_counted(tmp_path: Path) -> None:
    """Who goes by the folder is told of what a kill has left there; it breaks no promise."""
    run = _published(tmp_path)
    assert verify(run, 2).num_strays == 0
    masks = tmp_path / f"out/masks/run={run.run_id}"
    shutil.copy(next(masks.rglob("*.png")), masks / "stray.png")
    (masks / ".DS_Store").write_bytes(b"x")
    found = verify(run, 2)
    assert (found.num_strays, bool(found.breaks)) == (1, False)
    assert verify(run, 2, share=0.5).num_strays == 0


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "desktop.ini", "._x"])
def test_what_nobody_reads_beside_the_tables_is_no_break(name: str, tmp_path: Path) -> None:
    """What desktops lay into folders leaves a run whole: only Parquet files are read there."""
    run = _published(tmp_path)
    (tmp_path / f"out/images/run={run.run_id}/{name}").write_bytes(b"x")
    assert not verify(run, 2).breaks
