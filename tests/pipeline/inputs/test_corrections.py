"""Corrections over a large data set: which image each is of, in whatever layout and coding."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.__main__ import main
from pipeline.errors import InputError, SettingError
from pipeline.images.ground_truth import decode_truth
from pipeline.inputs.corrected import open_corrected
from pipeline.inputs.data_set import Asked, DataSet
from pipeline.store.storage import Storage
from tests.pipeline.export.labelled_output import on_disk, truth, two_nights
from tests.servers import Server


@pytest.fixture(scope="module", params=["files", "tar"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with in/ and out/, of two nights, and all.parquet, which selects all."""
    folder = tmp_path_factory.mktemp("nights")
    two_nights(on_disk(folder), Storage(), masks=request.param)
    assert main(["select", str(folder / "out"), "--to", str(folder / "all.parquet")]) == 0
    return folder


def opened(place: Path, corrections: Path, to: Path) -> DataSet:
    """Open all that was labelled, with corrections over it."""
    asked = Asked(f"file://{place}/all.parquet", "train", drawn_to=f"file://{to}")
    return open_corrected(Storage(), asked, f"file://{corrections}")


def _masks(data_set: DataSet) -> dict[str, np.ndarray]:
    return {
        one.image_uri: decode_truth(Storage().read_extent(one.mask), data_set.coding)
        for one in data_set.found.split("train")
    }


def _export(place: Path, to: Path, form: str, *flags: str) -> None:
    arguments = ["export", str(place / "out"), "--format", form, "--to", str(to), *flags]
    assert main(arguments) == 0


def _flip_voc(folder: Path) -> None:
    """Correct all masks as CVAT would write them: painted, with its background."""
    for path in folder.rglob("SegmentationClass/**/*.png"):
        with Image.open(path) as image:
            image.convert("RGB").transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(path)
    (folder / "classes.json").unlink()


def _expected(place: Path) -> dict[str, np.ndarray]:
    masks = truth(on_disk(place), Storage())
    return {f"file://{place}/in/{key}": mask for key, mask in masks.items()}


@pytest.mark.parametrize("images", [True, False])
def test_an_export_that_was_corrected_takes_the_place_of_the_masks(
    place: Path, tmp_path: Path, *, images: bool
):
    """Each mask is of its image, whatever name the export gave it; the images are those of data."""
    _export(place, tmp_path / "voc", "voc", *([] if images else ["--no-copy-images"]))
    _flip_voc(tmp_path / "voc")

    data_set = opened(place, tmp_path / "voc", tmp_path / "to")

    found, expected = _masks(data_set), _expected(place)
    assert found.keys() == expected.keys()
    for uri, mask in expected.items():
        np.testing.assert_array_equal(found[uri], mask[::-1], err_msg=uri)
    assert data_set.coding.kind == "indices"


@pytest.mark.parametrize(
    ("flags", "where"), [([], "coco_url"), (["--no-copy-images"], ""), ([], "path"), ([], "")]
)
def test_coco_takes_the_place_of_the_masks(
    place: Path, tmp_path: Path, flags: list[str], where: str
):
    """With an annotation removed; told by addresses, also as Label Studio has them, or by names."""
    _export(place, tmp_path / "coco", "coco", *flags)
    path = tmp_path / "coco/annotations/instances_default.json"
    found = json.loads(path.read_text())
    found["annotations"] = [one for one in found["annotations"] if one["category_id"] != 1]
    for image in found["images"]:
        image |= {where: image.pop("coco_url")}
    path.write_text(json.dumps(found))

    masks = _masks(opened(place, tmp_path / "coco", tmp_path / "to"))

    for uri, mask in _expected(place).items():
        np.testing.assert_array_equal(masks[uri], np.where(mask == 0, 255, mask), err_msg=uri)


def test_some_corrections_leave_the_others(place: Path, tmp_path: Path):
    """Images without a correction keep the masks of label."""
    _export(place, tmp_path / "voc", "voc")
    _flip_voc(tmp_path / "voc")
    (tmp_path / "voc/ImageSets/Segmentation/default.txt").write_text("deep/er/b c\n%23h\n")

    found = _masks(opened(place, tmp_path / "voc", tmp_path / "to"))

    for uri, mask in _expected(place).items():
        corrected = uri.endswith(("b c.JPEG", "#h.bmp"))
        np.testing.assert_array_equal(found[uri], mask[::-1] if corrected else mask)


def test_a_table_corrects_by_uri(place: Path, tmp_path: Path):
    """A manifest names the images themselves; its grey masks are read as they are."""
    mask = _expected(place)[f"file://{place}/in/a.jpg"]
    Image.fromarray(3 - np.minimum(mask, 3)).save(tmp_path / "better.png")
    line = f"{place}/in/a.jpg,{tmp_path}/better.png\n"
    (tmp_path / "set.csv").write_text(f"image_uri,mask_uri\n{line}")

    found = _masks(opened(place, tmp_path / "set.csv", tmp_path / "to"))

    np.testing.assert_array_equal(found[f"file://{place}/in/a.jpg"], 3 - np.minimum(mask, 3))
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["b c", "elsewhere"], "1 of 2 corrections are of no image of data: elsewhere; its images"),
        (["later/a"], "1 of 1 corrections are of no image of data: later/a"),
        (["e"], r"may be of file://.*/e\.\w+ or of file://.*/e\.\w+; name the images"),
        (["b c", "er/b c"], r"b c.png and .*er/b c.png both correct .*/in/deep/er/b c.JPEG"),
    ],
)
def test_what_can_not_be_told_is_named(place: Path, tmp_path: Path, names: list[str], words: str):
    """A correction of no image, of two, or of one that has another."""
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/default.txt").write_text("\n".join(names))
    (tmp_path / "labelmap.txt").write_text("class_0:0,0,0::\n")
    for name in names:
        path = tmp_path / f"SegmentationClass/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(path)

    with pytest.raises(InputError, match=words):
        opened(place, tmp_path, tmp_path / "to")


def test_other_classes_are_refused(place: Path, tmp_path: Path):
    """A label that the network lacks, or a classes file with others."""
    _export(place, tmp_path / "voc", "voc")
    labels = tmp_path / "voc/labelmap.txt"
    labels.write_text(labels.read_text().replace("class_1", "river"))
    with pytest.raises(InputError, match="has the label 'river', which is none of the classes"):
        opened(place, tmp_path / "voc", tmp_path / "to")
    labels.unlink()
    classes = tmp_path / "voc/classes.json"
    classes.write_text(classes.read_text().replace("class_1", "river"))
    with pytest.raises(SettingError, match=r"has the classes class_0, river, .* the same order"):
        opened(place, tmp_path / "voc", tmp_path / "to")


def test_corrections_in_a_bucket(place: Path, tmp_path: Path, s3: Server):
    """They are read there, and what is written anew of them lies there."""
    _export(place, tmp_path / "voc", "voc", "--no-copy-images")
    _flip_voc(tmp_path / "voc")
    bucket = s3.make_bucket()
    for path in filter(Path.is_file, (tmp_path / "voc").rglob("*")):
        s3.put(bucket, f"voc/{path.relative_to(tmp_path / 'voc')}", path.read_bytes())
    storage = Storage(s3.endpoint_url)
    asked = Asked(f"file://{place}/all.parquet", "train", drawn_to=f"s3://{bucket}/truths")

    data_set = open_corrected(storage, asked, f"s3://{bucket}/voc")

    for sample in data_set.found.split("train"):
        assert sample.mask_uri.startswith(f"s3://{bucket}/truths/")
        key = sample.image_uri.removeprefix(f"file://{place}/in/")
        found = decode_truth(storage.read(sample.mask_uri), data_set.coding)
        np.testing.assert_array_equal(found, truth(on_disk(place), Storage())[key][::-1])
