"""Exports in the forms of WebDataset, Hugging Face and Label Studio as data to train on."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.__main__ import main
from pipeline.errors import InputError, SettingError
from pipeline.images.brush import pack
from pipeline.images.decode import decode_image
from pipeline.images.ground_truth import decode_truth
from pipeline.inputs.corrected import open_corrected
from pipeline.inputs.data_set import Asked, DataSet, open_data_set
from pipeline.inputs.samples import Sample, split_of
from pipeline.inputs.unpacked import unpack, unpack_truths
from pipeline.settings.train import TrainSettings
from pipeline.store.cells import read_image
from pipeline.store.storage import Storage
from pipeline.training.plan import TrainingPlan, open_plan
from tests.pipeline.export.labelled_output import NAMES, on_disk, truth, two_nights

_FORMS = ("webdataset", "hf", "label-studio")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with in/, out/ of two nights, all.parquet, and an export of each form."""
    folder = tmp_path_factory.mktemp("nights")
    two_nights(on_disk(folder), Storage())
    assert main(["select", str(folder / "out"), "--to", str(folder / "all.parquet")]) == 0
    for form in _FORMS:
        to = ["--format", form, "--to", str(folder / form)]
        assert main(["export", str(folder / "out"), *to]) == 0
    return folder


def _masks(folder: Path) -> dict[str, np.ndarray]:
    return truth(on_disk(folder), Storage())


def _submit(folder: Path, corrected: Callable[[np.ndarray], np.ndarray], masks: dict) -> None:
    """Submit every task; Label Studio's Export lies beside what was imported there."""
    tasks = json.loads((folder / "tasks_00000.json").read_text())
    for task in tasks:
        mask = corrected(masks[task["data"]["key"]])
        results = [
            {**_result(mask.shape), "value": {"rle": pack(mask == index), "brushlabels": [name]}}
            for index, name in ((index, f"class_{index}") for index in np.unique(mask[mask < 255]))
        ]
        draft = {"result": results[:1], "updated_at": "2026-01-01T00:00:00Z"}
        done = {"result": results, "updated_at": "2026-02-01T00:00:00Z"}
        dropped = {"result": [], "updated_at": "2026-03-01T00:00:00Z", "was_cancelled": True}
        task["annotations"] = [draft, done, dropped]
    (folder / "project-1-at-2026-02-01.json").write_text(json.dumps(tasks))


def _result(size: tuple[int, ...], kind: str = "brushlabels") -> dict[str, Any]:
    height, width = size
    return {"type": kind, "original_height": height, "original_width": width, "id": "r"}


def _opened(data: Path, to: Path, split: str | None = "train") -> DataSet:
    return open_data_set(Storage(), Asked(f"file://{data}", split, drawn_to=f"file://{to}"))


def _loaded(data_set: DataSet, samples: list[Sample]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read samples as a training does, by what they are called."""
    found = {}
    for one in samples:
        name = data_set.found.names[one.image_uri]
        image = decode_image(read_image(Storage(), one.image), 10**6)
        found[name] = image, decode_truth(Storage().read_extent(one.mask), data_set.coding)
    return found


def _samples(data_set: DataSet) -> list[Sample]:
    return [one for some in data_set.found.splits.values() for one in some]


@pytest.mark.parametrize(("form", "layout"), [("webdataset", "webdataset"), ("hf", "parquet")])
@pytest.mark.parametrize("alone", [False, True])
def test_an_export_is_data(place: Path, tmp_path: Path, form: str, layout: str, *, alone: bool):
    """Each image is read beside its mask, with the classes of the network; also of one file."""
    [file] = (one for one in (place / form).rglob("*") if one.suffix in (".tar", ".parquet"))
    if alone:
        (file.parent / "classes.json").write_bytes((place / form / "classes.json").read_bytes())
    data_set = _opened(file if alone else place / form, tmp_path)

    samples = unpack(Storage(), _samples(data_set), f"file://{tmp_path}/unpacked")

    assert data_set.found.layout == layout
    assert [label.name for label in data_set.classes] == [f"class_{at}" for at in range(4)]
    found = _loaded(data_set, samples)
    masks = _masks(place)
    called = {
        NAMES[key].replace(".", "%2E") if form == "webdataset" else f"file://{place}/in/{key}": key
        for key in NAMES
    }
    assert found.keys() == called.keys()
    for name, key in called.items():
        image, mask = found[name]
        np.testing.assert_array_equal(mask, masks[key], err_msg=key)
        assert image.shape[:2] == mask.shape
        if not key.endswith("turned.jpg"):
            seen = decode_image((place / "in" / key).read_bytes(), 10**6)
            np.testing.assert_array_equal(image, seen, err_msg=key)


def test_submitted_tasks_are_data(place: Path, tmp_path: Path):
    """The annotation that was changed last counts, a cancelled one does not; images are read."""
    masks = _masks(place)
    tasks = tmp_path / "done"
    tasks.mkdir()
    for path in (place / "label-studio").iterdir():
        (tasks / path.name).write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="of Label Studio's tasks count those that somebody"):
        _opened(tasks, tmp_path / "to")
    _submit(tasks, np.flipud, masks)

    for data in (tasks, tasks / "project-1-at-2026-02-01.json"):
        data_set = _opened(data, tmp_path / "to")
        assert [label.name for label in data_set.classes] == [f"class_{at}" for at in range(4)]
        found = _loaded(data_set, data_set.found.split("train"))
        assert found.keys() == {f"file://{place}/in/{key}" for key in NAMES}
        for key, mask in masks.items():
            np.testing.assert_array_equal(found[f"file://{place}/in/{key}"][1], mask[::-1])


@pytest.mark.parametrize("form", _FORMS)
@pytest.mark.parametrize("data", ["all.parquet", "hf"])
def test_an_export_takes_the_place_of_the_masks(place: Path, tmp_path: Path, form: str, data: str):
    """As corrections each mask is of its image, whatever name the form and the data give it."""
    masks = _masks(place)
    copy = tmp_path / form
    for path in (one for one in (place / form).rglob("*") if one.is_file()):
        (copy / path.relative_to(place / form)).parent.mkdir(parents=True, exist_ok=True)
        (copy / path.relative_to(place / form)).write_bytes(path.read_bytes())
    if form == "label-studio":
        _submit(copy, np.fliplr, masks)
    else:
        _rewrite(copy, np.fliplr)
    asked = Asked(f"file://{place}/{data}", "train", drawn_to=f"file://{tmp_path}/to")

    data_set = open_corrected(Storage(), asked, f"file://{copy}")

    samples = unpack_truths(Storage(), data_set.found.split("train"), f"file://{tmp_path}/un")
    called = {uri: data_set.found.names.get(uri, uri) for uri in (one.image_uri for one in samples)}
    assert set(called.values()) == {f"file://{place}/in/{key}" for key in masks}
    for one in samples:
        mask = masks[called[one.image_uri].removeprefix(f"file://{place}/in/")]
        found = decode_truth(Storage().read_extent(one.mask), data_set.coding)
        np.testing.assert_array_equal(found, mask[:, ::-1], err_msg=one.image_uri)


def _turned(data: bytes, corrected: Callable[[np.ndarray], np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(corrected(np.asarray(Image.open(io.BytesIO(data))))).save(buffer, "PNG")
    return buffer.getvalue()


def _rewrite(folder: Path, corrected: Callable[[np.ndarray], np.ndarray]) -> None:
    """Correct the masks of a tar, or of a Parquet file, with other people's programs."""
    for path in folder.rglob("*.tar"):
        with tarfile.open(path) as tar:
            files = {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]
        with tarfile.open(path, "w") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                new = _turned(data, corrected) if name.endswith(".mask.png") else data
                member.size = len(new)
                tar.addfile(member, io.BytesIO(new))
    for path in folder.rglob("*.parquet"):
        rows = pq.read_table(path).to_pylist()
        for row in rows:
            row["mask"]["bytes"] = _turned(row["mask"]["bytes"], corrected)
        pq.write_table(pa.Table.from_pylist(rows), path)


def test_polygons_of_label_studio_are_drawn(tmp_path: Path):
    """In percent of the image; images are found beside the file by what Label Studio calls them."""
    Image.new("RGB", (20, 10)).save(tmp_path / "road 1.png")
    square = {"points": [[0, 0], [50, 0], [50, 100], [0, 100]], "polygonlabels": ["road"]}
    results = [{**_result((10, 20), "polygonlabels"), "value": square}, {"type": "choices"}]
    address = "http://studio/data/upload/3/0123abcd-road%201.png"
    task = {"data": {"picture": address}, "annotations": [{"result": results}], "predictions": [7]}
    (tmp_path / "export.json").write_text(json.dumps([task]))

    data_set = _opened(tmp_path / "export.json", tmp_path / "to")

    [sample] = data_set.found.split("train")
    assert sample.image_uri == f"file://{tmp_path}/road 1.png"
    found = decode_truth(Storage().read_extent(sample.mask), data_set.coding)
    np.testing.assert_array_equal(found, np.where(np.arange(20) < 10, 0, 255)[None].repeat(10, 0))


@pytest.mark.parametrize(
    ("shape", "inside"),
    [
        (
            {"x": 25, "y": 10, "width": 50, "height": 60, "rotation": 0},
            lambda x, y: (x > 10) & (x < 30) & (y > 2) & (y < 14),
        ),
        # A quarter turn around the upper left corner: what was down lies to its left.
        (
            {"x": 75, "y": 50, "width": 20, "height": 60, "rotation": 90},
            lambda x, y: (x > 18) & (x < 30) & (y > 10) & (y < 18),
        ),
        (
            {"x": 50, "y": 50, "radiusX": 30, "radiusY": 20, "rotation": 0},
            lambda x, y: ((x - 20) / 12) ** 2 + ((y - 10) / 4) ** 2 < 1,
        ),
        (
            {"x": 50, "y": 50, "radiusX": 20, "radiusY": 20, "rotation": 90},
            lambda x, y: ((x - 20) / 4) ** 2 + ((y - 10) / 8) ** 2 < 1,
        ),
    ],
)
def test_rectangles_and_ellipses_are_drawn(tmp_path: Path, shape: dict, inside: Callable):
    """Turned as Label Studio turns them, around a corner or the centre, also in a wide image."""
    kind = "ellipselabels" if "radiusX" in shape else "rectanglelabels"
    result = {**_result((20, 40), kind), "value": {**shape, kind: ["road"]}}
    task = {"data": {"image": "s3://b/a.png"}, "annotations": [{"result": [result]}]}
    (tmp_path / "tasks.json").write_text(json.dumps([task]))

    data_set = _opened(tmp_path / "tasks.json", tmp_path / "to")

    [sample] = data_set.found.split("train")
    found = decode_truth(Storage().read_extent(sample.mask), data_set.coding)
    y, x = np.mgrid[:20, :40] + 0.5
    wrong = (found == 0) != inside(x, y)
    # Pixels that an outline passes through may be of either side.
    assert wrong.mean() < 0.03
    assert (found == 0).sum() > 50


def _task(**result: Any) -> list[dict[str, Any]]:
    full = {**_result((2, 2)), "value": {"rle": [], "brushlabels": ["a"]}, **result}
    return [{"data": {"image": "s3://b/a.png"}, "annotations": [{"result": [full]}]}]


def _of_two_images() -> list[dict[str, Any]]:
    [task] = _task(to_name="left")
    task["annotations"][0]["result"] *= 2
    task["annotations"][0]["result"][1] = {**_result((2, 2)), "to_name": "right", "value": {}}
    return [task]


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        (
            _task(type="vectorlabels", value={"vertices": [], "vectorlabels": ["a"]}),
            "result r of task None is vectorlabels; of Label Studio brushes",
        ),
        (_task(value={"rle": [], "brushlabels": ["a", "b"]}), "has the labels a, b; a region is"),
        (_task(value={"rle": []}), "has the labels none; a region is of one"),
        (_of_two_images(), "the task has regions of several images"),
        ([*_task(), *_task()], "2 tasks with annotations are of s3://b/a.png; keep one"),
        (_task(original_height=-4), "an image of .-4, 2. .height, width."),
        (_task(image_rotation=90), "is turned in Label Studio"),
        (_task(), "no outline that can be drawn .polygons, RLE, a brush.: it is cut off"),
        (_task(value={"rle": pack(np.ones((3, 2), bool)), "brushlabels": ["a"]}), "24 values"),
        (_task(value={"rle": [300], "brushlabels": ["a"]}), "no outline that can be drawn"),
        ([{"image": "s3://b/a.png", "tag": []}], "count those that somebody has submitted"),
        ([{"annotations": [{}]}], "count those that somebody has submitted"),
        ([1], "nor Label Studio's"),
    ],
)
def test_tasks_that_can_not_be_read_are_refused(tmp_path: Path, tasks: list, words: str):
    """With the file, what is wrong, and what is read instead."""
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    with pytest.raises(InputError, match=words):
        _opened(tmp_path / "tasks.json", tmp_path / "to")


def test_samples_without_a_mask_are_refused(tmp_path: Path):
    """A tar's sample and a table's columns are named, with what is needed."""
    picture = io.BytesIO()
    Image.new("RGB", (2, 2)).save(picture, "PNG")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("0.png", "0.cls"):
            member = tarfile.TarInfo(name)
            member.size = len(picture.getvalue())
            tar.addfile(member, io.BytesIO(picture.getvalue()))
    with pytest.raises(
        InputError, match=r"0 has .png, .cls; a sample is one image .* and one mask"
    ):
        _opened(tmp_path / "a.tar", tmp_path)
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:600])
    with pytest.raises(InputError, match=r"a.tar is damaged: at byte 1,024 of 600"):
        _opened(tmp_path / "a.tar", tmp_path)
    table = pa.table({"left": [picture.getvalue()], "right": [picture.getvalue()]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"one of masks, called mask, label.*it has left .binary."):
        _opened(tmp_path / "a.parquet", tmp_path)
    pq.write_table(table.rename_columns(["image", "label"]), tmp_path / "a.parquet")
    with pytest.raises(SettingError, match="the classes are not known"):
        _opened(tmp_path / "a.parquet", tmp_path)


def test_a_damaged_row_is_an_error_of_the_data(tmp_path: Path):
    """A null mask, or a file that is gone, is named before anything is trained."""
    pq.write_table(
        pa.table({"image": [b"x"], "mask": pa.array([None], pa.binary())}), tmp_path / "a.parquet"
    )
    (tmp_path / "classes.json").write_text(
        '{"classes": [{"id": 0, "name": "a", "color": [0, 0, 0]}]}'
    )
    sample = Sample(
        f"file://{tmp_path}/a.parquet!/image/000000000",
        f"file://{tmp_path}/a.parquet!/mask/000000000",
    )
    with pytest.raises(InputError, match=r"row 0 of mask. is null"):
        unpack(Storage(), [sample], f"file://{tmp_path}/to")
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(InputError, match=r"a.parquet"):
        unpack(Storage(), [sample], f"file://{tmp_path}/to")


def test_a_column_is_read_once(place: Path, tmp_path: Path):
    """And what was unpacked is not unpacked again, unless the file has changed."""
    samples = _samples(_opened(place / "hf", tmp_path))
    storage = Storage().counting()
    first = unpack(storage, samples, f"file://{tmp_path}/to")
    one_pass = storage.requests["read"]
    assert one_pass <= 2 * 4  # two columns, of a file whose footer is read for each

    assert unpack(storage, samples, f"file://{tmp_path}/to") == first
    assert storage.requests["read"] == one_pass
    assert all(one.image_copy is not None for one in first)
    assert [one.image_uri for one in first] == [one.image_uri for one in samples]


@pytest.mark.parametrize(
    ("key", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("validation-00000.parquet", "val"),
        ("val/000000.tar", "val"),
        ("test.tar", "test"),
        ("shard-000000.tar", "default"),
        ("training-set/shard.tar", "default"),
        ("camvid-train-000000.tar", "train"),
        ("mydata_val.parquet", "val"),
        ("train/test-field-1.tar", "train"),
        ("eval-0.parquet", "val"),
        ("testing/a.tar", "test"),
        ("retrained-0.tar", "default"),
        ("", "default"),
    ],
)
def test_the_split_is_told_by_the_name(key: str, split: str):
    """A folder of just this name goes before a part of the file's."""
    assert split_of(key) == split


def test_what_has_no_region_or_no_label_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """An empty annotation whose size is not known, a click, a stroke without a label: counted."""
    [task] = _task(value={"rle": pack(np.ones((2, 2), bool)), "brushlabels": ["a"]})
    kept = task["annotations"][0]["result"]
    kept += [{"type": "brush", "id": "s"}, {"type": "keypointlabels"}, {"type": "brush", "id": "r"}]
    empty = {"data": {"image": "s3://b/b.png"}, "annotations": [{"result": []}]}
    seen = {**empty, "data": {"image": "s3://b/d.png"}, "predictions": [{"result": kept[:1]}]}
    waiting = {"data": {"image": "s3://b/c.png"}, "annotations": []}
    (tmp_path / "tasks.json").write_text(json.dumps([task, empty, waiting, seen]))

    with caplog.at_level("INFO"):
        data_set = _opened(tmp_path / "tasks.json", tmp_path / "to")

    samples = data_set.found.split("train")
    assert [one.image_uri for one in samples] == ["s3://b/a.png", "s3://b/d.png"]
    assert np.unique(decode_truth(Storage().read_extent(samples[1].mask), data_set.coding)) == [255]
    for words in ("1 tasks of", "submitted without a region", "2 regions and clicks"):
        assert words in caplog.text
    assert "submitted with nothing drawn" in caplog.text


def test_labels_go_by_the_configuration(tmp_path: Path):
    """In its order, of any of its elements that draw, also by their aliases."""
    (tmp_path / "label_config.xml").write_text(
        '<View><Brush name="b" toName="i"/><Labels name="l" toName="i">'
        '<Label value="zebra" background="#010203"/><Label value="road" alias="rd"/>'
        "</Labels></View>"
    )
    value = {"rle": pack(np.ones((2, 2), bool)), "labels": ["rd"]}
    (tmp_path / "done.json").write_text(json.dumps(_task(type="labels", value=value)))

    data_set = _opened(tmp_path, tmp_path / "to")

    assert [label.name for label in data_set.classes] == ["zebra", "road"]
    assert data_set.classes[0].color == (1, 2, 3)
    [sample] = data_set.found.split("train")
    assert (decode_truth(Storage().read_extent(sample.mask), data_set.coding) == 1).all()


def _pixel() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (2, 2)).save(buffer, "PNG")
    return buffer.getvalue()


def _tar(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(_pixel())
            tar.addfile(member, io.BytesIO(_pixel()))


def _classes(folder: Path) -> None:
    (folder / "classes.json").write_text(
        '{"classes": [{"id": 0, "name": "a", "color": [0, 0, 0]}]}'
    )


def test_files_beside_images_and_masks_are_no_data(tmp_path: Path):
    """A table of embeddings, the raw download, a configuration: the folders count."""
    for kind in ("images", "masks"):
        (tmp_path / f"train/{kind}").mkdir(parents=True)
        (tmp_path / f"train/{kind}/a.png").write_bytes(_pixel())
    _classes(tmp_path)
    _tar(tmp_path / "train/raw.tar", "x.jpg")
    pq.write_table(pa.table({"x": [b"1"]}), tmp_path / "index.parquet")
    (tmp_path / "label_config.xml").write_text("<View/>")

    assert _opened(tmp_path, tmp_path / "to").found.layout == "folders"


def test_splits_of_tars_are_told_apart(tmp_path: Path):
    """By the names of files; one of no split beside them is an error, hidden files are passed."""
    _classes(tmp_path)
    _tar(tmp_path / "set-train-0.tar", "0.png", "0.mask.png")
    _tar(tmp_path / "set-val-0.tar", "1.image.png", "1.mask.png")
    (tmp_path / "._set-train-0.tar").write_bytes(b"no tar")

    found = _opened(tmp_path, tmp_path / "to").found

    assert {name: len(some) for name, some in found.splits.items()} == {"train": 1, "val": 1}
    _tar(tmp_path / "more.tar", "2.png", "2.mask.png")
    with pytest.raises(InputError, match=r"files of the splits train, val, and others .*more.tar"):
        _opened(tmp_path, tmp_path / "to")
    _tar(tmp_path / "more.tar", "frame.0001.png", "frame.0001.mask.png")
    with pytest.raises(InputError, match=r"frame has .0001.png, .0001.mask.png; a sample is one"):
        _opened(tmp_path, tmp_path / "to")
    (tmp_path / "more.tar").rename(tmp_path / "more.tar.gz")
    for data in (tmp_path, tmp_path / "more.tar.gz"):
        with pytest.raises(InputError, match=r"compressed tar.*make it a plain .tar first"):
            _opened(data, tmp_path / "to")


def test_a_name_that_is_no_utf8_is_refused(tmp_path: Path):
    """It could stand in no table."""
    _classes(tmp_path)
    with tarfile.open(
        tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1"
    ) as tar:
        member = tarfile.TarInfo("stra\u00dfe.png")
        member.size = len(_pixel())
        tar.addfile(member, io.BytesIO(_pixel()))
    with pytest.raises(InputError, match=r"no UTF-8: stra.xdfe.png"):
        _opened(tmp_path, tmp_path / "to")


def test_parquet_files_as_others_write_them(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """A dot in a column's name, one without images beside them, classes.json above `data`."""
    (tmp_path / "data").mkdir()
    _classes(tmp_path)
    image = [{"bytes": _pixel(), "path": "/home/me/x.png"}]
    table = pa.table({"img.rgb": image, "label": [_pixel()]})
    pq.write_table(table, tmp_path / "data/train-0.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "data/metadata.parquet")

    for data in (tmp_path, tmp_path / "data", tmp_path / "data/train-0.parquet"):
        found = _opened(data, tmp_path / "to").found
        [sample] = found.split("train")
        assert found.names[sample.image_uri] == "home/me/x.png"
    assert "1 Parquet files" in caplog.text
    kind = table["img.rgb"].type
    empty = table.set_column(1, "label", pa.array([{"bytes": None, "path": "a.png"}], kind))
    pq.write_table(empty, tmp_path / "data/train-0.parquet")
    with pytest.raises(InputError, match="is null"):
        _opened(tmp_path, tmp_path / "to")


def test_a_plan_is_that_of_the_data_wherever_it_is_unpacked(tmp_path: Path):
    """Files written anew with the same rows are the same data; all folds have one copy of it."""
    (tmp_path / "data").mkdir()
    _classes(tmp_path / "data")
    rows = pa.table({"image": [_pixel()] * 5, "mask": [_pixel()] * 5})
    pq.write_table(rows, tmp_path / "data/train-0.parquet")

    def plan(fold: str) -> TrainingPlan:
        places = {"data": str(tmp_path / "data"), "output": str(tmp_path / "out")}
        return open_plan(TrainSettings(**places, run_name="r", val_fold=fold, width=4))

    plans = [plan(f"{fold}/5") for fold in range(5)]
    assert not (tmp_path / "out").exists()
    unpacked = [one.unpacked() for one in plans]
    files = list((tmp_path / "out/unpacked").rglob("*"))
    assert len([one for one in files if one.is_file()]) == 11
    assert all(one.train["image_copy"].null_count == 0 for one in unpacked)
    assert [one.fingerprint for one in unpacked] == [one.fingerprint for one in plans]
    assert len({one.fingerprint for one in plans}) == 5
    os.utime(tmp_path / "data/train-0.parquet", (1, 1))
    assert plan("0/5").fingerprint == plans[0].fingerprint
