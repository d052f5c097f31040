"""`export`: what the readers of each format find is what `label` has written, pixel for pixel."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image, ImageOps
from pycocotools.coco import COCO

from jobs.__main__ import main
from pipeline.errors import ErrorCode, Scope, SettingError, StoreError
from pipeline.export.voc import labelmap
from pipeline.images.brush import pack
from pipeline.images.masks import IGNORE_COLOR
from pipeline.inputs.layouts import find_labelled
from pipeline.labelling.records import ClassRecord
from pipeline.store.storage import Storage
from tests.disk_runs import random_pixels
from tests.pipeline.export.labelled_output import NAMES, label, on_disk, pictures, truth, two_nights
from tests.servers import Server


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with in/ and out/, of two nights."""
    folder = tmp_path_factory.mktemp("nights")
    two_nights(on_disk(folder), Storage())
    return folder


def _export(place: Path, to: Path, form: str, *flags: str, code: int = 0) -> Path:
    arguments = ["export", str(place / "out"), "--format", form, "--to", str(to), *flags]
    assert main(arguments) == code
    return to


def _expected(place: Path) -> dict[str, np.ndarray]:
    masks = truth(on_disk(place), Storage())
    assert masks.keys() == NAMES.keys()
    return {NAMES[key]: mask for key, mask in masks.items()}


def _assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, mask in expected.items():
        assert (mask == 255).sum() == 2
        np.testing.assert_array_equal(found[name], mask, err_msg=name)


def test_voc_is_read_by_its_indices_and_by_its_colours(place: Path, tmp_path: Path) -> None:
    """Palettes give the indices, as VOC's tools read them; colours give labelmap.txt's classes."""
    folder = _export(place, tmp_path / "voc", "voc")
    names = (folder / "ImageSets/Segmentation/default.txt").read_text("utf-8").splitlines()
    lines = (folder / "labelmap.txt").read_text().splitlines()
    assert lines[0] == "# label:color_rgb:parts:actions"
    colours = [tuple(map(int, line.split(":")[1].split(","))) for line in lines[1:]]
    assert lines[-1] == "ignore:224,224,192::"
    by_index, by_colour = {}, {}
    for name in names:
        with Image.open(folder / "SegmentationClass" / f"{name}.png") as mask:
            by_index[name] = np.asarray(mask)
            rgb = np.asarray(mask.convert("RGB"))
        by_colour[name] = np.full(rgb.shape[:2], 254, np.uint8)
        for index, colour in enumerate(colours):
            value = 255 if index == len(colours) - 1 else index
            by_colour[name][(rgb == colour).all(-1)] = value
    _assert_equal(by_index, _expected(place))
    _assert_equal(by_colour, _expected(place))
    assert len(names) == len(set(names))


@pytest.mark.parametrize("form", ["voc", "coco"])
def test_masks_in_tars_give_the_same_export(place: Path, tmp_path: Path, form: str) -> None:
    """The files are those of an export of masks in files, names included."""
    two_nights(on_disk(tmp_path), Storage(), masks="tar")
    assert list(tmp_path.glob("out/masks/run=night-*/*.tar"))
    folders = [_export(one, tmp_path / one.name / form, form) for one in (place, tmp_path)]
    files = [
        {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in folders
    ]
    for found, one in zip(files, (place, tmp_path), strict=True):
        for name in found:
            found[name] = found[name].replace(str(one).encode(), b"")
    assert files[0] == files[1]


def test_voc_has_images_that_every_reader_shows_upright(place: Path, tmp_path: Path) -> None:
    """JPEGs end in .jpg, the rest are PNGs, of their masks' sizes and the pixels labelled."""
    folder = _export(place, tmp_path / "voc", "voc")
    files = {
        str(path.relative_to(folder / "JPEGImages").with_suffix("")): path
        for path in (folder / "JPEGImages").rglob("*.*")
    }
    assert files.keys() == set(NAMES.values())
    for key, name in NAMES.items():
        with Image.open(files[name]) as image, Image.open(place / "in" / key) as original:
            shown, seen = np.asarray(image.convert("RGB")), ImageOps.exif_transpose(original)
            assert image.size == seen.size
            assert image.format == ("JPEG" if original.format == "JPEG" else "PNG")
            assert files[name].suffix == (".jpg" if image.format == "JPEG" else ".png")
            difference = np.abs(shown.astype(int) - np.asarray(seen.convert("RGB")))
        assert difference.max() == 0 or (name == "turned" and difference.mean() < 4)
    untouched = (place / "in" / "deep/er/b c.JPEG").read_bytes()
    assert (folder / "JPEGImages/deep/er/b c.jpg").read_bytes() == untouched


def test_voc_is_data_for_train(place: Path, tmp_path: Path) -> None:
    """The project's own reader finds each image beside its mask, and the classes."""
    folder = _export(place, tmp_path / "voc", "voc")
    found = find_labelled(Storage(), on_disk(folder))
    assert found.layout == "voc"
    assert found.classes_uri == f"file://{folder}/classes.json"
    samples = found.split("default")
    assert len(samples) == len(NAMES)
    for sample in samples:
        assert Path(sample.image_uri.removeprefix("file://")).exists()
        assert Path(sample.mask_uri.removeprefix("file://")).exists()


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ([("sky", (1, 2, 3)), ("road", (1, 2, 3))], "'sky' and 'road' have one colour"),
        ([("sky", IGNORE_COLOR)], "'sky' and 'ignore' have one colour"),
        ([("a:b", (1, 2, 3))], "can't be called 'a:b'"),
    ],
)
def test_voc_refuses_classes_that_it_can_not_tell_apart(classes: list, words: str) -> None:
    """Two classes of one colour, or of that of 255, are refused, as are names with a colon."""
    records = [ClassRecord(id=at, name=name, color=one) for at, (name, one) in enumerate(classes)]
    with pytest.raises(SettingError, match=words.replace("(", r"\(")):
        labelmap(records)


def test_voc_names_255_apart_from_a_class_called_ignore() -> None:
    """A class that is called ignore keeps its name."""
    lines = labelmap([ClassRecord(id=0, name="ignore", color=(1, 2, 3))]).splitlines()
    assert lines[1:] == ["ignore:1,2,3::", "ignore_255:224,224,192::"]


def _read_coco(folder: Path) -> dict[str, np.ndarray]:
    """Read masks by pycocotools; boxes, areas and pictures' sizes are theirs."""
    coco = COCO(str(folder / "annotations" / "instances_default.json"))
    assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == [
        f"class_{index}" for index in range(4)
    ]
    found = {}
    for image in coco.loadImgs(coco.getImgIds()):
        name = str(Path(image["file_name"]).with_suffix(""))
        mask = np.full((image["height"], image["width"]), 255, np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            pixels = coco.annToMask(annotation).astype(bool)
            assert annotation["area"] == pixels.sum()
            rows, columns = np.nonzero(pixels)
            x, y, width, height = annotation["bbox"]
            assert (x, y, width, height) == (
                columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1,
            )  # fmt: skip
            mask[pixels] = annotation["category_id"] - 1
        found[name] = mask
        with Image.open(folder / "images" / image["file_name"]) as shown:
            assert shown.size == (image["width"], image["height"])
    return found


def test_coco_is_read_by_pycocotools(place: Path, tmp_path: Path) -> None:
    """Each class's annotation unpacks to its pixels; 255 is in none; boxes and areas are theirs."""
    _assert_equal(_read_coco(_export(place, tmp_path / "coco", "coco")), _expected(place))


def test_coco_is_cut_into_files_that_are_whole(place, tmp_path, monkeypatch) -> None:
    """With more images than a file holds, each file has its images and annotations, from 1 on."""
    monkeypatch.setattr("pipeline.export.coco._IMAGES_PER_FILE", 4)
    folder = _export(place, tmp_path / "coco", "coco", "--no-copy-images")
    files = sorted((folder / "annotations").iterdir())
    assert [one.name for one in files] == [f"instances_{number:05d}.json" for number in range(3)]
    assert not (folder / "images").exists()
    parts = [COCO(str(one)) for one in files]
    assert [len(one.imgs) for one in parts] == [4, 4, 2]
    for part in parts:
        assert {one["image_id"] for one in part.anns.values()} == set(part.imgs)
        assert all(one["file_name"].startswith("file:///") for one in part.imgs.values())


def _read_webdataset(folder: Path) -> dict[str, np.ndarray]:
    """Read masks by webdataset's decode("pil")."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        for sample in webdataset.WebDataset(str(path), shardshuffle=False).decode("pil"):
            name = sample["__key__"].replace("%2E", ".")
            pixels = np.asarray(sample["mask.png"])
            assert (pixels == pixels[..., :1]).all()
            image = sample.get("jpg") or sample["png"]
            assert image.size == sample["mask.png"].size
            assert NAMES[sample["json"]["key"]] == name
            found[name] = pixels[..., 0]
    return found


# Its reader leaves files to be closed by the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_is_read_as_pictures(place: Path, tmp_path: Path) -> None:
    """decode("pil") gives each mask's indices in every channel, beside its image and its row."""
    folder = _export(place, tmp_path / "wds", "webdataset")
    _assert_equal(_read_webdataset(folder), _expected(place))


def _read_hf(folder: Path) -> dict[str, np.ndarray]:
    """Read masks by the features that the schema's metadata names."""
    table = pq.read_table(folder / "data" / "train-00000.parquet")
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == features["mask"] == {"_type": "Image"}
    assert list(features) == table.column_names
    found = {}
    for row in table.to_pylist():
        with Image.open(io.BytesIO(row["mask"]["bytes"])) as mask:
            assert mask.mode == "L"
            found[NAMES[row["key"]]] = np.asarray(mask)
        with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
            assert image.size == mask.size
    return found


def test_hf_is_read_by_the_features_in_its_schema(place: Path, tmp_path: Path) -> None:
    """The schema's metadata names the features as `datasets` does; bytes and paths are files."""
    _assert_equal(_read_hf(_export(place, tmp_path / "hf", "hf")), _expected(place))


def _unpack(rle: list[int]) -> np.ndarray:
    """Read thi.ng's rle-pack as its decoder does, which is Label Studio's."""
    bits = "".join(f"{one:08b}" for one in rle)
    place = 0

    def read(number: int) -> int:
        nonlocal place
        place += number
        return int(bits[place - number : place], 2)

    number, size = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < number:
        is_run = read(1)
        length = read(sizes[read(2)]) + 1
        values += [read(size)] * length if is_run else [read(size) for _ in range(length)]
    return np.array(values, np.uint8)


def _read_tasks(folder: Path) -> dict[str, np.ndarray]:
    """Read the masks of tasks by their brushes."""
    found = {}
    for task in json.loads((folder / "tasks_00000.json").read_text()):
        [prediction] = task["predictions"]
        assert 0 < prediction["score"] < 1
        key = task["data"]["key"]
        results = prediction["result"]
        size = (results[0]["original_height"], results[0]["original_width"])
        mask = np.full(size, 255, np.uint8)
        for one in results:
            channels = _unpack(one["value"]["rle"]).reshape(*size, 4)
            assert (channels == channels[..., :1]).all()
            mask[channels[..., 3] > 0] = int(one["value"]["brushlabels"][0].removeprefix("class_"))
        found[NAMES[key]] = mask
    return found


def test_label_studio_gets_brushes_with_a_score(place: Path, tmp_path: Path, caplog) -> None:
    """Each task's brushes unpack to the mask, and it has its address and its mean confidence."""
    prefix = "https://images.example/"
    folder = _export(place, tmp_path / "ls", "label-studio", "--image-url-prefix", prefix)
    _assert_equal(_read_tasks(folder), _expected(place))
    [*_, task] = json.loads((folder / "tasks_00000.json").read_text())
    assert task["data"]["image"] == prefix + "%C3%BCn%C3%AC/i.png"
    assert "e.tif, are of formats that browsers do not show" in caplog.text
    config = (folder / "label_config.xml").read_text()
    assert '<Label value="class_1" background="#' in config


@pytest.mark.parametrize("shape", [(1, 1), (1, 17_000), (40, 50)])
def test_a_brush_holds_runs_of_any_length(shape: tuple[int, int], monkeypatch) -> None:
    """Single pixels, and runs beyond the longest that the form has a length for, are packed."""
    monkeypatch.setattr("pipeline.images.brush._RUNS_AT_A_TIME", 100)
    for mask in (np.ones(shape, bool), random_pixels(1, *shape) > 128, np.zeros(shape, bool)):
        assert (_unpack(pack(mask)).reshape(*shape, 4)[..., 0] == 255 * mask).all()


def test_a_long_export_says_how_far_it_is(place: Path, tmp_path: Path, caplog) -> None:
    """After so many seconds: a million images take an hour on one machine."""
    caplog.set_level("INFO")
    _export(place, tmp_path / "coco", "coco", "--io-threads", "1", "--log-interval-s", "1e-9")
    assert "2 images are written" in caplog.text
    # Before the first image is read, which may be the slowest.
    assert caplog.messages[0] == "12 masks of 2 runs to go through"


def test_a_selection_is_exported_alone(place: Path, tmp_path: Path) -> None:
    """`select`'s file, or any manifest, says which images; unknown ones are counted."""
    chosen = str(tmp_path / "chosen.parquet")
    assert main(["select", str(place / "out"), "--to", chosen, "--random", "3"]) == 0
    folder = _export(place, tmp_path / "voc", "voc", "--selection", chosen)
    names = (folder / "ImageSets/Segmentation/default.txt").read_text().splitlines()
    keys = pq.read_table(chosen)["key"].to_pylist()
    assert len(names) == 3
    # An ending is part of a name only beside another image of that stem.
    stems = sorted(name.removesuffix(".tif") for name in names)
    assert sorted(NAMES[key].removesuffix(".tif") for key in keys) == stems


def test_one_run_is_exported_alone(place: Path, tmp_path: Path) -> None:
    """With run_id the masks are those of that run, also of images that a later run did again."""
    folder = _export(place, tmp_path / "voc", "voc", "--run-id", "night-2", "--no-copy-images")
    names = (folder / "ImageSets/Segmentation/default.txt").read_text().splitlines()
    assert names == ["a", "e", "new one"]
    assert not (folder / "JPEGImages").exists()


def test_exporting_again_gives_the_same_files(place: Path, tmp_path: Path) -> None:
    """All formats write the same bytes the second time."""
    for form in ("voc", "coco", "label-studio", "webdataset", "hf"):
        first, again = (_export(place, tmp_path / name / form, form) for name in ("1", "2"))
        files = [path.relative_to(first) for path in first.rglob("*") if path.is_file()]
        assert files
        assert all((first / one).read_bytes() == (again / one).read_bytes() for one in files)


def test_images_that_are_gone_or_changed_are_left_out(tmp_path: Path, caplog) -> None:
    """Both are named. Of what is gone nothing can be mended; what has changed exits with 4."""
    two_nights(on_disk(tmp_path), Storage())
    (tmp_path / "in" / "a.jpg").unlink()
    gone = _export(tmp_path, tmp_path / "gone", "voc")
    names = (gone / "ImageSets/Segmentation/default.txt").read_text().splitlines()
    assert len(names) == len(NAMES) - 1
    assert "1 image is left out: gone from the input" in caplog.text
    Image.fromarray(random_pixels(9, 3, 4, 3)).save(tmp_path / "in" / "deep" / "d.png")
    folder = _export(tmp_path, tmp_path / "voc", "voc", code=4)
    names = (folder / "ImageSets/Segmentation/default.txt").read_text().splitlines()
    assert len(names) == len(NAMES) - 2
    assert "deep/d.png" in caplog.text
    assert "1 image is left out: changed since labelled" in caplog.text


_READERS = {
    "coco": _read_coco,
    "hf": _read_hf,
    "label-studio": _read_tasks,
    "webdataset": _read_webdataset,
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("form", _READERS)
def test_other_forms_from_bucket_to_bucket(form: str, s3: Server, tmp_path: Path) -> None:
    """Images and masks are read from a bucket; what is written to one has every pixel."""
    bucket = f"s3://{s3.make_bucket()}"
    storage = Storage(s3.endpoint_url)
    two_nights(bucket, storage, s3.endpoint_url)
    arguments = ["export", f"{bucket}/out", "--format", form, "--to", f"{bucket}/to"]
    assert main([*arguments, "--s3-endpoint-url", s3.endpoint_url]) == 0
    for entry in storage.walk(f"{bucket}/to"):
        path = tmp_path / entry.uri.removeprefix(f"{bucket}/to/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(storage.read(entry.uri))
    expected = {NAMES[key]: mask for key, mask in truth(bucket, storage).items()}
    _assert_equal(_READERS[form](tmp_path), expected)


def test_from_bucket_to_bucket(s3: Server, tmp_path: Path) -> None:
    """Images and masks are read from a bucket, and the export is written to one."""
    bucket = f"s3://{s3.make_bucket()}"
    storage = Storage(s3.endpoint_url)
    two_nights(bucket, storage, s3.endpoint_url)
    arguments = ["export", f"{bucket}/out", "--format", "voc", "--to", f"{bucket}/voc"]
    assert main([*arguments, "--s3-endpoint-url", s3.endpoint_url]) == 0
    names = storage.read(f"{bucket}/voc/ImageSets/Segmentation/default.txt").decode().splitlines()
    expected = {NAMES[key]: mask for key, mask in truth(bucket, storage).items()}
    found = {
        name: np.asarray(
            Image.open(io.BytesIO(storage.read(f"{bucket}/voc/SegmentationClass/{name}.png")))
        )
        for name in names
    }
    _assert_equal(found, expected)


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--format", "yolo"], 2, "'voc', 'coco', 'label-studio', 'webdataset' or 'hf'"),
        (["--format", "hf", "--no-copy-images"], 2, "copy_images is for voc and coco"),
        (["--format", "voc", "--image-url-prefix", "x"], 2, "is for label-studio"),
        (["--format", "voc", "--to", "in/voc"], 2, "lies in the input"),
        (["--format", "coco", "--to", "x.json"], 2, "names a file; export writes a folder"),
        (["--format", "webdataset", "--to", "x.TAR"], 2, "names a file; export writes a folder"),
        (["--format", "voc", "--selection", "gone.parquet"], 3, "selection="),
        (["--format", "voc", "--run-id", "night-9"], 3, "no run 'night-9'"),
    ],
)
def test_what_can_not_be_exported(
    place: Path, tmp_path: Path, flags: list[str], code: int, words: str, caplog, monkeypatch
) -> None:
    """It is refused with the reason, before anything is written."""
    monkeypatch.chdir(place)
    to = [] if "--to" in flags else ["--to", str(tmp_path / "to")]
    assert main(["export", "out", *to, *flags]) == code
    assert words in caplog.text
    assert not list(tmp_path.iterdir())
    assert not (place / "in" / "voc").exists()


def test_a_damaged_mask_is_named(tmp_path: Path, caplog) -> None:
    """A mask that is not the one that was written ends the export with 3."""
    two_nights(on_disk(tmp_path), Storage())
    next((tmp_path / "out" / "masks").rglob("new one.png")).write_bytes(b"cut off")
    _export(tmp_path, tmp_path / "voc", "voc", code=3)
    assert "new one.png is not the mask that was written" in caplog.text


@pytest.mark.parametrize("form", ["voc", "select"])
def test_refused_credentials_are_no_failure_of_images(
    place: Path, tmp_path: Path, form: str, monkeypatch
) -> None:
    """What the store says of all images ends the command with 5, and leaves no image out."""

    def refuse(*_: object) -> bytes:
        raise StoreError(ErrorCode.FORBIDDEN, "the key is unknown", Scope.STORE)

    monkeypatch.setattr(Storage, "read_version", refuse)
    if form == "voc":
        _export(place, tmp_path / "to", form, code=5)
        return
    flags = ["--random", "1", "--not-near-duplicates", "--to", str(tmp_path / "to.parquet")]
    assert main(["select", str(place / "out"), *flags]) == 5


def test_an_export_lies_not_where_a_pattern_takes_it(tmp_path: Path, caplog) -> None:
    """`**` takes pictures at any depth below its folder, and so those of an export there."""
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(random_pixels(1, 9, 9, 3)).save(source / "a.png")
    label(on_disk(tmp_path), f"{on_disk(source)}/**/*.png", "night-1")
    _export(tmp_path, source / "voc", "voc", code=2)
    assert "/in/**/*.png, where the next label would take it for photographs" in caplog.text


@pytest.mark.parametrize("form", ["voc", "coco", "label-studio", "webdataset", "hf"])
def test_an_export_replaces_no_image(tmp_path: Path, form: str, caplog) -> None:
    """A folder that holds the images is refused: they could have the names of what is written."""
    images = tmp_path / "JPEGImages"
    images.mkdir()
    images.joinpath("turned.jpg").write_bytes(pictures(0)["turned.jpg"])
    label(on_disk(tmp_path), on_disk(images), "night-1")
    there = sorted(tmp_path.iterdir())
    _export(tmp_path, tmp_path, form, code=2)
    assert "JPEGImages, of the images of run night-1, which could be replaced" in caplog.text
    assert images.joinpath("turned.jpg").read_bytes() == pictures(0)["turned.jpg"]
    assert sorted(tmp_path.iterdir()) == there


def test_a_place_that_can_not_be_written_is_a_wrong_setting(tmp_path: Path, caplog) -> None:
    """Trying again can't help, so it ends with 2 and names the setting; `select` does the same."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/turned.jpg").write_bytes(pictures(0)["turned.jpg"])
    label(on_disk(tmp_path), on_disk(tmp_path / "in"), "night-1")
    file = tmp_path / "file"
    file.write_bytes(b"in the way")
    for form in ("voc", "coco", "hf"):
        _export(tmp_path, file / "below", form, code=2)
        assert f"to='file://{file}/below' can't be written" in caplog.text
        caplog.clear()
    (tmp_path / "a_folder.parquet").mkdir()
    place = str(tmp_path / "a_folder.parquet")
    assert main(["select", str(tmp_path / "out"), "--random", "1", "--to", place]) == 2
    assert "a_folder.parquet' can't be written: " in caplog.text


def test_an_export_may_lie_in_an_output_that_lies_in_the_input(tmp_path: Path) -> None:
    """A listing leaves the output out, and so all that is exported to below it."""
    source = tmp_path / "in"
    source.mkdir()
    Image.fromarray(random_pixels(1, 9, 9, 3)).save(source / "a.png")
    label(on_disk(source), on_disk(source), "night-1")
    to = _export(source, source / "out" / "voc", "voc")
    assert (to / "JPEGImages" / "a.png").exists()


def test_a_missing_library_is_named(place: Path, tmp_path: Path, caplog, monkeypatch) -> None:
    """Without the extra the format that needs it says what to install."""
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.delitem(sys.modules, "pipeline.export.coco", raising=False)
    _export(place, tmp_path / "to", "coco", code=2)
    assert "needs pycocotools, which is not installed: pip install" in caplog.text


def test_an_export_into_a_folder_with_files_says_what_is_read_with_it(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Shards of an earlier export would be read beside the new ones; an empty folder is silent."""
    to = tmp_path / "shards"
    to.mkdir()
    for is_empty in (True, False):
        caplog.clear()
        _export(place, to, "webdataset")
        warned = [one for one in caplog.messages if "is not empty, it holds" in one]
        assert bool(warned) is not is_empty
