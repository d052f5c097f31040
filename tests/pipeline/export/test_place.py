"""Where an export may not lie: nothing that was labelled is ever replaced, not even in part."""

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.__main__ import main
from pipeline.store.storage import Storage
from tests.disk_runs import start_run
from tests.pipeline.export.labelled_output import label, on_disk, pictures

_FORMS = ["voc", "coco", "label-studio", "webdataset", "hf"]
_PICTURE = pictures(0)["turned.jpg"]


def _photos(folder: Path, *names: str, data: bytes = _PICTURE) -> list[Path]:
    """Write photographs, which an export would turn and so change."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return [folder / name for name in names]


def _manifest(folder: Path, *images: Path) -> str:
    place = folder / "list.csv"
    place.write_text("".join(f"{line}\n" for line in ("uri", *map(on_disk, images))))
    return on_disk(place)


def _export(folder: Path, to: Path | str, form: str, *flags: str) -> int:
    return main(["export", str(folder / "out"), "--format", form, "--to", str(to), *flags])


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("form", _FORMS)
def test_a_manifest_over_two_places_loses_none_of_either(tmp_path: Path, form: str, caplog) -> None:
    """The image of an earlier row is not replaced before a later one's place is looked at."""
    early, late = tmp_path / "a", tmp_path / "to"
    images = _photos(early, "x.jpg", "y.jpg")
    # Where the first would be written: names of images in a manifest are all of their places.
    images += _photos(late, f"JPEGImages{images[0]}")
    label(on_disk(tmp_path), _manifest(tmp_path, *images), "night-1")
    there = _files(tmp_path)
    assert _export(tmp_path, late, form, "--io-threads", "1") == 2
    assert _files(tmp_path) == there
    assert f"{images[2]}, of the images of run night-1" in caplog.text


def test_an_image_that_failed_is_not_replaced_either(tmp_path: Path, caplog) -> None:
    """What could not be decoded is somebody's file, too, which no row of a mask asks about."""
    good = _photos(tmp_path / "in", "deep/good.jpg")
    bad = _photos(tmp_path / "to", "JPEGImages/bad.jpg", data=b"<html>")
    label(on_disk(tmp_path), _manifest(tmp_path, *good, *bad), "night-1")
    there = _files(tmp_path)
    assert _export(tmp_path, tmp_path / "to", "voc") == 2
    assert f"{bad[0]}, of the images of run night-1" in caplog.text
    assert _files(tmp_path) == there


def test_an_image_that_a_selection_leaves_out_is_not_replaced(tmp_path: Path, caplog) -> None:
    """The export asks about all that was labelled, and not only about what it writes."""
    good = _photos(tmp_path / "in", "deep/good.jpg")
    other = _photos(tmp_path / "to", "JPEGImages/other.jpg")
    label(on_disk(tmp_path), _manifest(tmp_path, *good, *other), "night-1")
    chosen = tmp_path / "chosen.csv"
    chosen.write_text(f"uri\n{on_disk(good[0])}\n")
    there = _files(tmp_path)
    assert _export(tmp_path, tmp_path / "to", "voc", "--selection", str(chosen)) == 2
    assert f"{other[0]}, of the images of run night-1" in caplog.text
    assert _files(tmp_path) == there


def test_an_image_of_an_earlier_night_is_not_replaced(tmp_path: Path, caplog) -> None:
    """Every run is asked, also with --run-id, which exports another."""
    for night, place in (("night-1", "to"), ("night-2", "in")):
        images = _photos(tmp_path / place, f"JPEGImages/{place}.jpg")
        label(on_disk(tmp_path), _manifest(tmp_path, *images), night)
    there = _files(tmp_path)
    for flags in ([], ["--run-id", "night-2"]):
        assert _export(tmp_path, tmp_path / "to", "voc", *flags) == 2
        assert "to.jpg, of the images of run night-1" in caplog.text
        assert _files(tmp_path) == there
        caplog.clear()


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_files_that_hold_the_images_are_not_replaced(tmp_path: Path, kind: str, caplog) -> None:
    """A shard or a Parquet file of images has the name that an export's own would have."""
    to = tmp_path / "to"
    (to / "data").mkdir(parents=True)
    file = to / ("shard-000000.tar" if kind == "tar" else "data/train-00000.parquet")
    if kind == "tar":
        with tarfile.open(file, "w") as tar:
            member = tarfile.TarInfo("turned.jpg")
            member.size = len(_PICTURE)
            tar.addfile(member, io.BytesIO(_PICTURE))
    else:
        pq.write_table(pa.table({"image": [_PICTURE]}), file)
    named = {"tar": file, "parquet": file.parent / "*.parquet"}[kind]
    label(on_disk(tmp_path), on_disk(named), "night-1")
    there = _files(tmp_path)
    assert _export(tmp_path, to, {"tar": "webdataset", "parquet": "hf"}[kind]) == 2
    assert "of the images of run night-1" in caplog.text
    assert _files(tmp_path) == there


def test_links_lead_no_export_to_the_images(tmp_path: Path, caplog) -> None:
    """Of the target and of the input it counts where they lie, whatever links they are named by."""
    _photos(tmp_path / "data", "JPEGImages/x.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "data")
    label(on_disk(tmp_path), on_disk(tmp_path / "data/JPEGImages"), "night-1")
    there = _files(tmp_path)
    assert _export(tmp_path, tmp_path / "link", "voc") == 2
    assert _export(tmp_path, tmp_path / "link/JPEGImages/voc", "voc") == 2
    assert "lies in the input" in caplog.text
    label(on_disk(tmp_path), on_disk(tmp_path / "link/JPEGImages"), "night-2")
    (tmp_path / "out" / "runs" / "night-1").rename(tmp_path / "night-1")
    there = _files(tmp_path)
    assert _export(tmp_path, tmp_path / "data", "voc") == 2
    assert _files(tmp_path) == there


@pytest.mark.parametrize("below", ["", "images", "images/coco", "masks/x", "runs", "history"])
def test_an_export_lies_in_no_folder_of_an_output_s_own(tmp_path: Path, below: str, caplog) -> None:
    """Pictures beside the tables would be read with them; a folder beside these is free."""
    _photos(tmp_path / "in", "x.jpg")
    label(on_disk(tmp_path), on_disk(tmp_path / "in"), "night-1")
    there = _files(tmp_path)
    assert _export(tmp_path, tmp_path / "out" / below, "coco") == 2
    assert "holds what label has written; name another folder, as in" in caplog.text
    assert _files(tmp_path) == there
    assert _export(tmp_path, tmp_path / "out/exports/coco", "coco") == 0


def test_where_no_image_can_lie_no_table_is_read_for_it(tmp_path: Path, monkeypatch) -> None:
    """Of a folder's images the places are known; of a manifest's, each table is read once more."""
    _photos(tmp_path / "in", "x.jpg")
    label(on_disk(tmp_path), on_disk(tmp_path / "in"), "night-1")
    read, plain = [], Storage.read
    monkeypatch.setattr(Storage, "read", lambda self, uri: read.append(uri) or plain(self, uri))
    assert _export(tmp_path, tmp_path / "voc", "voc") == 0
    assert sum("/images/run=night-1/" in uri for uri in read) == 1
    images = _photos(tmp_path / "others", "y.jpg")
    label(on_disk(tmp_path), _manifest(tmp_path, *images), "night-2")
    assert _export(tmp_path, tmp_path / "voc", "voc", "--run-id", "night-2") == 0
    assert sum("/images/run=night-2/" in uri for uri in read) == 2


def test_a_selection_replaces_nothing_that_was_labelled(tmp_path: Path, caplog) -> None:
    """The Parquet file that holds the images, a manifest and an output's tables are refused."""
    file = tmp_path / "photos.parquet"
    pq.write_table(pa.table({"image": [_PICTURE]}), file)
    label(on_disk(tmp_path), f"{on_disk(tmp_path)}/photo*.parquet", "night-1")
    table = next((tmp_path / "out/images/run=night-1").glob("*.parquet"))
    there = _files(tmp_path)
    for to in (file, table):
        assert main(["select", str(tmp_path / "out"), "--random", "1", "--to", str(to)]) == 2
        assert f"to='file://{to}'" in caplog.text
        assert _files(tmp_path) == there
    listed = tmp_path / "list.parquet"
    pq.write_table(pa.table({"uri": [on_disk(*_photos(tmp_path / "in", "x.jpg"))]}), listed)
    label(on_disk(tmp_path), on_disk(listed), "night-2")
    there = _files(tmp_path)
    assert main(["select", str(tmp_path / "out"), "--random", "1", "--to", str(listed)]) == 2
    assert _files(tmp_path) == there


def test_an_unfinished_run_s_images_are_not_replaced(tmp_path: Path, caplog) -> None:
    """What a run is about to label has no table yet; its input says where it lies."""
    _photos(tmp_path / "in", "x.jpg")
    _photos(tmp_path / "to", "JPEGImages/x.jpg")
    label(on_disk(tmp_path), on_disk(tmp_path / "in"), "night-1")
    start_run(tmp_path, tmp_path / "to/JPEGImages", run_id="night-2")
    there = _files(tmp_path)
    assert _export(tmp_path, tmp_path / "to", "voc") == 2
    assert _files(tmp_path) == there


@pytest.mark.parametrize("lies", ["the images", "the run's masks"])
def test_a_link_to_a_place_is_that_place(tmp_path: Path, lies: str, caplog) -> None:
    """A folder by another name is refused as by its own: around images, and in an output."""
    images = _photos(tmp_path / "photos", "JPEGImages/x.jpg")
    label(on_disk(tmp_path), _manifest(tmp_path, *images), "night-1")
    place = {"the images": "photos", "the run's masks": "out/masks/run=night-1"}[lies]
    (tmp_path / "link").symlink_to(tmp_path / place)
    there = _files(tmp_path)
    assert _export(tmp_path, tmp_path / "link", "voc") == 2
    assert _files(tmp_path) == there
    assert "could be replaced" in caplog.text or "what label has written" in caplog.text


def test_a_selection_does_not_replace_the_manifest_behind_a_link(tmp_path: Path) -> None:
    """The input of the run is refused, by whatever way it is named."""
    images = _photos(tmp_path / "photos", "x.jpg")
    label(on_disk(tmp_path), _manifest(tmp_path, *images), "night-1")
    (tmp_path / "link").symlink_to(tmp_path)
    there = _files(tmp_path)
    command = ["select", str(tmp_path / "out"), "--random", "1"]
    assert main([*command, "--to", str(tmp_path / "link/list.csv")]) == 2
    assert _files(tmp_path) == there
