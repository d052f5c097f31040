"""Labelled data sets: four layouts, on disks and in buckets; what does not belong together."""

import json
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.inputs.layouts import find_labelled
from pipeline.inputs.samples import Sample
from pipeline.store.storage import Storage
from tests.servers import Server


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def _names(samples: list[Sample]) -> list[tuple[str, str]]:
    return [(one.image_uri.rpartition("/")[2], one.mask_uri.rpartition("/")[2]) for one in samples]


def test_folders_with_splits(tmp_path: Path):
    """train/ and val/ are paired by names without endings, at any depth."""
    touch(tmp_path, "train/images/a.jpg", "train/masks/a.png", "classes.json")
    touch(tmp_path, "train/images/b/c.PNG", "train/masks/b/c.png", "train/images/notes.txt")
    touch(tmp_path, "val/images/d.jpg", "val/masks/d.png", "other/x.txt")

    found = find_labelled(Storage(), f"file://{tmp_path}")

    assert found.layout == "folders"
    assert _names(found.splits["train"]) == [("a.jpg", "a.png"), ("c.PNG", "c.png")]
    assert _names(found.splits["val"]) == [("d.jpg", "d.png")]
    assert found.classes_uri == f"file://{tmp_path}/classes.json"
    with pytest.raises(InputError, match=r"no split 'test'; it has train \(2\), val \(1\)"):
        found.split("test")


def test_one_folder_is_the_training_split(tmp_path: Path):
    """images/ and masks/ alone are `train`."""
    touch(tmp_path, "images/a.jpg", "masks/a.png")

    assert list(find_labelled(Storage(), f"file://{tmp_path}").splits) == ["train"]


def test_pascal_voc(tmp_path: Path):
    """The lists of ImageSets say which image is in which split; trainval is none of its own."""
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    for name, stems in {"train": "2007_1\n2007_2\n", "val": "2007_3\n", "trainval": "x"}.items():
        (tmp_path / f"ImageSets/Segmentation/{name}.txt").write_text(stems)
    touch(tmp_path, "JPEGImages/2007_1.jpg", "SegmentationClass/2007_1.png")

    found = find_labelled(Storage(), f"file://{tmp_path}")

    assert found.layout == "voc"
    assert {name: _names(some) for name, some in found.splits.items()} == {
        "train": [("2007_1.jpg", "2007_1.png"), ("2007_2.jpg", "2007_2.png")],
        "val": [("2007_3.jpg", "2007_3.png")],
    }


def test_pascal_voc_of_other_tools(tmp_path: Path):
    """Names may have spaces and images another ending, as CVAT exports them; .jpg goes first."""
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_bytes(b"a\r\nb 01\r\n\r\ngone\r\n")
    touch(tmp_path, "JPEGImages/a.png", "JPEGImages/a.jpg", "JPEGImages/b 01.png")

    found = find_labelled(Storage(), f"file://{tmp_path}")

    assert _names(found.splits["train"]) == [
        ("a.jpg", "a.png"),
        ("b 01.png", "b 01.png"),
        ("gone.jpg", "gone.png"),
    ]


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_cityscapes(tmp_path: Path, kind: str):
    """Images and truths lie in two trees; train ids are taken where there are any."""
    for split, city, stem in (("train", "ulm", "ulm_1"), ("val", "bonn", "bonn_2")):
        touch(tmp_path, f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png")
        touch(tmp_path, f"gtFine/{split}/{city}/{stem}_gtFine_labelIds.png")
        touch(tmp_path, f"gtFine/{split}/{city}/{stem}_gtFine_{kind}.png")

    found = find_labelled(Storage(), f"file://{tmp_path}")

    assert found.layout == "cityscapes"
    assert found.raw_ids == (kind == "labelIds")
    assert _names(found.splits["val"]) == [("bonn_2_leftImg8bit.png", f"bonn_2_gtFine_{kind}.png")]


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_manifests(tmp_path: Path, ending: str):
    """image_uri and mask_uri make a sample, split says where it belongs; without, it is train."""
    rows = [
        ("/b.jpg", "/b.png", "val"),
        ("/c.jpg", "/c.png", "train"),
        ("/a.jpg", "/a.png", "train"),
    ]
    path = tmp_path / f"set.{ending}"
    if ending == "csv":
        path.write_text(
            "image_uri,mask_uri,split\n" + "".join(",".join(row) + "\n" for row in rows)
        )
    else:
        names = ("image_uri", "mask_uri", "split")
        path.write_text(
            "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
        )

    found = find_labelled(Storage(), f"file://{path}")

    assert _names(found.splits["train"]) == [("a.jpg", "a.png"), ("c.jpg", "c.png")]
    assert _names(found.splits["val"]) == [("b.jpg", "b.png")]


def test_a_bucket(s3: Server):
    """The same layouts lie in buckets."""
    bucket = s3.make_bucket()
    for key in ("set/train/images/a.jpg", "set/train/masks/a.png", "set/classes.json"):
        s3.put(bucket, key, b"")

    found = find_labelled(Storage(s3.endpoint_url), f"s3://{bucket}/set")

    prefix = f"s3://{bucket}/set"
    assert found.splits == {
        "train": [Sample(f"{prefix}/train/images/a.jpg", f"{prefix}/train/masks/a.png")]
    }
    assert found.classes_uri == f"{prefix}/classes.json"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["images/a.jpg", "images/b.jpg", "masks/a.png"], "1 images .* file in masks/: b"),
        (["images/a.jpg", "masks/a.png", "masks/b.png"], "1 masks .* file in images/: b"),
        (["images/a.jpg", "images/a.png", "masks/a.png"], "have one name but for the ending"),
        (["photos/a.jpg"], "is not a labelled data set: it needs .*; it holds photos"),
        (["leftImg8bit/train/x/a_leftImg8bit.png", "gtFine/x"], "without a file in gtFine/"),
        (["JPEGImages/a.jpg"], "holds no lists"),
        (["set.csv"], "can't be read|needs the columns"),
        (["set.zip"], r"set\.zip' is a zip: unpack it and name the folder"),
        (["a.zip", "b.ZIP"], r"holds a\.zip, which is a zip: unpack it and name the folder"),
    ],
)  # fmt: skip
def test_what_does_not_belong_together_is_named(tmp_path: Path, names: list[str], words: str):
    """Lonely files, double names and foreign folders are errors with the names."""
    touch(tmp_path, *names)
    place = tmp_path / names[0] if names[0].startswith("set.") else tmp_path

    with pytest.raises(InputError, match=words):
        find_labelled(Storage(), f"file://{place}")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    """A wrong path is an error about the path."""
    with pytest.raises(InputError, match="it holds nothing"):
        find_labelled(Storage(), f"file://{tmp_path}/nowhere")
