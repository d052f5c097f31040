"""Exports in the forms of WebDataset, Hugging Face and Label Studio as data to train on."""

import io
import json
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
from pipeline.store.cells import read_image
from pipeline.store.storage import Storage
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
    """Submit every task, as Label Studio's Export writes it in its form JSON."""
    path = folder / "tasks_00000.json"
    tasks = json.loads(path.read_text())
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
    path.write_text(json.dumps(tasks))


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
    with pytest.raises(InputError, match="none of 10 tasks has an annotation"):
        _opened(tasks, tmp_path / "to")
    _submit(tasks, np.flipud, masks)

    for data in (tasks, tasks / "tasks_00000.json"):
        data_set = _opened(data, tmp_path / "to")
        assert [label.name for label in data_set.classes] == [f"class_{at}" for at in range(4)]
        found = _loaded(data_set, data_set.found.split("train"))
        assert found.keys() == {f"file://{place}/in/{key}" for key in NAMES}
        for key, mask in masks.items():
            np.testing.assert_array_equal(found[f"file://{place}/in/{key}"][1], mask[::-1])


@pytest.mark.parametrize("form", _FORMS)
def test_an_export_takes_the_place_of_the_masks(place: Path, tmp_path: Path, form: str):
    """As corrections each mask is of its image, whatever name the form gives it."""
    masks = _masks(place)
    copy = tmp_path / form
    for path in (one for one in (place / form).rglob("*") if one.is_file()):
        (copy / path.relative_to(place / form)).parent.mkdir(parents=True, exist_ok=True)
        (copy / path.relative_to(place / form)).write_bytes(path.read_bytes())
    if form == "label-studio":
        _submit(copy, np.fliplr, masks)
    else:
        _rewrite(copy, np.fliplr)
    asked = Asked(f"file://{place}/all.parquet", "train", drawn_to=f"file://{tmp_path}/to")

    data_set = open_corrected(Storage(), asked, f"file://{copy}")

    samples = unpack_truths(Storage(), data_set.found.split("train"), f"file://{tmp_path}/un")
    assert {one.image_uri for one in samples} == {f"file://{place}/in/{key}" for key in masks}
    for one in samples:
        mask = masks[one.image_uri.removeprefix(f"file://{place}/in/")]
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
    address = "/data/upload/3/0123abcd-road%201.png".replace("%20", " ")
    task = {"data": {"picture": address}, "annotations": [{"result": results}]}
    (tmp_path / "export.json").write_text(json.dumps([task]))

    data_set = _opened(tmp_path / "export.json", tmp_path / "to")

    [sample] = data_set.found.split("train")
    assert sample.image_uri == f"file://{tmp_path}/road 1.png"
    found = decode_truth(Storage().read_extent(sample.mask), data_set.coding)
    np.testing.assert_array_equal(found, np.where(np.arange(20) < 10, 0, 255)[None].repeat(10, 0))


def _task(**result: Any) -> list[dict[str, Any]]:
    full = {**_result((2, 2)), "value": {"rle": [], "brushlabels": ["a"]}, **result}
    return [{"data": {"image": "s3://b/a.png"}, "annotations": [{"result": [full]}]}]


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        (_task(type="rectanglelabels"), "type rectanglelabels; of Label Studio brushes"),
        (_task(image_rotation=90), "is turned in Label Studio"),
        (_task(), "no outline that can be drawn .polygons, RLE, a brush.: it is cut off"),
        (_task(value={"rle": pack(np.ones((3, 2), bool)), "brushlabels": ["a"]}), "24 values"),
        (_task(value={"rle": [300], "brushlabels": ["a"]}), "no outline that can be drawn"),
        ([{"image": "s3://b/a.png", "tag": []}], "none of 1 tasks has an annotation"),
        ([{"annotations": [{}]}], "nor Label Studio's .a list of tasks.: KeyError: 'result'"),
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
    with pytest.raises(InputError, match=r"0 has .png, .cls; a sample is one image and one mask"):
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
    (tmp_path / "classes.json").write_text('{"classes": [{"id": 0, "name": "a"}]}')
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
        ("", "default"),
    ],
)
def test_the_split_is_told_by_the_name(key: str, split: str):
    """That of the file, else that of its folder."""
    assert split_of(key) == split
