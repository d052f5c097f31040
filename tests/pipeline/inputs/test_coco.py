"""COCO's annotations as ground truth: what is drawn, over what, and what lies where."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from jobs.__main__ import main
from pipeline.errors import InputError
from pipeline.images.ground_truth import decode_truth
from pipeline.inputs.data_set import Asked, DataSet, open_data_set
from pipeline.store.storage import Storage
from tests.pipeline.export.labelled_output import on_disk, truth, two_nights

_SIZE = (6, 8)
_SQUARE = [[1, 1, 5, 1, 5, 4, 1, 4]]
_CATEGORIES = [{"id": 7, "name": "tree"}, {"id": 3, "name": "road", "color": [1, 2, 3]}]


def coco(folder: Path, annotations: list[dict[str, Any]], *categories: dict[str, Any]) -> Path:
    """Write images/a b.png with its annotations; give the file."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", _SIZE[::-1]).save(folder / "images/a b.png")
    image = {"id": 5, "file_name": "a b.png", "height": _SIZE[0], "width": _SIZE[1]}
    annotations = [
        {"id": index, "image_id": 5, "category_id": 3, **one}
        for index, one in enumerate(annotations)
    ]
    found = {
        "images": [image],
        "annotations": annotations,
        "categories": list(categories or _CATEGORIES),
    }
    (folder / "annotations").mkdir(exist_ok=True)
    path = folder / "annotations/instances_default.json"
    path.write_text(json.dumps(found))
    return path


def opened(place: Path, to: Path, classes: Path | None = None) -> DataSet:
    """Open a data set as `train` does."""
    asked = Asked(
        f"file://{place}", "train", classes and f"file://{classes}", drawn_to=f"file://{to}"
    )
    return open_data_set(Storage(), asked)


def drawn(place: Path, to: Path, classes: Path | None = None) -> np.ndarray:
    """Read the only truth of a data set."""
    data_set = opened(place, to, classes)
    [sample] = data_set.found.split("train")
    assert Path(sample.image_uri.removeprefix("file://")).is_file()
    return decode_truth(Storage().read(sample.mask_uri), data_set.coding)


def _half() -> np.ndarray:
    mask = np.zeros(_SIZE, np.uint8)
    mask[:, 4:] = 1
    return mask


def _packed() -> dict[str, Any]:
    packed = rle.encode(np.asfortranarray(_half()))
    return {"size": packed["size"], "counts": packed["counts"].decode()}


@pytest.mark.parametrize(
    "outline",
    [_packed(), {"size": [6, 8], "counts": [24, 24]}, [[4, 0, 8, 0, 8, 6, 4, 6]]],
    ids=["packed", "runs", "polygon"],
)
def test_all_outlines_are_drawn(tmp_path: Path, outline: Any):
    """Polygons and runs give the same pixels; the rest is 255, and ids may be any numbers."""
    file = coco(tmp_path, [{"segmentation": outline}])

    data_set = opened(file, tmp_path / "to")

    assert [(one.name, one.color) for one in data_set.classes] == [
        ("road", (1, 2, 3)),
        ("tree", (128, 0, 0)),
    ]
    expected = np.where(_half() == 1, 0, 255)
    np.testing.assert_array_equal(drawn(file, tmp_path / "to"), expected)
    np.testing.assert_array_equal(drawn(tmp_path, tmp_path / "folder"), expected)


def test_later_annotations_are_over_earlier_ones(tmp_path: Path):
    """In the order of the file, whatever their categories."""
    square = np.zeros(_SIZE, bool)
    square[1:4, 1:5] = True
    annotations = [{"segmentation": _packed()}, {"segmentation": _SQUARE, "category_id": 7}]

    found = drawn(coco(tmp_path, annotations), tmp_path / "to")
    turned = drawn(coco(tmp_path, annotations[::-1]), tmp_path / "to")

    assert (found[square] == 1).all()
    assert (turned[square & (_half() == 1)] == 0).all()


def test_background_fills_what_is_not_drawn(tmp_path: Path):
    """A class called so that no annotation is of; where it is drawn, the rest is 255."""
    background = {"id": 0, "name": "background"}
    one = [{"segmentation": _packed()}]
    filled = drawn(coco(tmp_path, one, background, *_CATEGORIES), tmp_path / "to")
    assert set(np.unique(filled)) == {0, 1}
    both = [*one, {"segmentation": _SQUARE, "category_id": 0}]
    found = drawn(coco(tmp_path, both, background, *_CATEGORIES), tmp_path / "to")
    assert set(np.unique(found)) == {0, 1, 255}


def test_classes_of_a_network_decide(tmp_path: Path):
    """With a classes file categories go by name, and one that it lacks is an error."""
    file = coco(tmp_path, [{"segmentation": _packed()}])
    classes = tmp_path / "model.json"
    names = ["background", "tree", "road"]
    record = {"network": "x", "classes": [{"name": one, "color": [0, 0, 1]} for one in names]}
    classes.write_text(json.dumps(record))
    assert set(np.unique(drawn(file, tmp_path / "to", classes))) == {0, 2}
    record["classes"].pop()
    classes.write_text(json.dumps(record))
    with pytest.raises(InputError, match="has the label 'road', which is none of the classes"):
        opened(file, tmp_path / "to", classes)


def test_truths_are_drawn_once(tmp_path: Path):
    """A second command reads what the first has drawn; other annotations are drawn anew."""
    file = coco(tmp_path, [{"segmentation": _packed()}])
    [first] = opened(file, tmp_path / "to").found.split("train")
    path = Path(first.mask_uri.removeprefix("file://"))
    path.write_bytes(b"as it was")
    assert opened(file, tmp_path / "to").found.split("train") == [first]
    assert path.read_bytes() == b"as it was"

    coco(tmp_path, [{"segmentation": _SQUARE}])

    [second] = opened(file, tmp_path / "to").found.split("train")
    assert second.mask_uri != first.mask_uri


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"segmentation": []}, "annotation 0 .road. of a b.png has no outline that can be drawn"),
        ({"segmentation": None}, "has no outline"),
        ({"segmentation": [[1, 2, 3, 4]]}, "at least three x, y"),
        ({"segmentation": [[1, 2, 3, 4, float("inf"), 6]]}, "corners are numbers"),
        ({"segmentation": {"size": [6, 8], "counts": [1, 2]}}, "runs of 3 pixels in all"),
        ({"segmentation": {"size": [6, 8], "counts": "\x00zz"}}, "has no outline"),
        ({"segmentation": {"size": [8, 6], "counts": [24, 24]}}, r"is of \[8, 6\], its image of"),
        ({"category_id": 9}, "neither a file of COCO's .*KeyError: 9"),
        ({"image_id": 9}, "neither a file of COCO's .*KeyError: 9"),
        ({"segments_info": []}, "panoptic form"),
    ],
)
def test_what_can_not_be_drawn_is_named(tmp_path: Path, change: dict[str, Any], words: str):
    """The annotation, or what the file lacks."""
    file = coco(tmp_path, [{"segmentation": _SQUARE, **change}])

    with pytest.raises(InputError, match=words):
        opened(file, tmp_path / "to")


@pytest.mark.parametrize("place", ["images", ".", "images/default", "annotations", "default"])
def test_images_are_found_where_others_put_them(tmp_path: Path, place: str):
    """Beside the file, beside its folder, in images/, or in a folder of the split's name."""
    file = coco(tmp_path, [{"segmentation": _SQUARE}])
    (tmp_path / place).mkdir(exist_ok=True)
    if place != "images":
        shutil.move(tmp_path / "images/a b.png", tmp_path / place / "a b.png")

    [sample] = opened(file, tmp_path / "to").found.split("train")

    assert Path(sample.image_uri.removeprefix("file://")).samefile(tmp_path / place / "a b.png")


@pytest.mark.parametrize("flags", [[], ["--no-copy-images"]])
def test_our_own_export_comes_back(tmp_path: Path, flags: list[str]):
    """Each mask is what was exported, to the pixel, 255 included; images are where they are."""
    two_nights(on_disk(tmp_path), Storage())
    to = ["--format", "coco", "--to", str(tmp_path / "coco"), *flags]
    assert main(["export", str(tmp_path / "out"), *to]) == 0
    expected = truth(on_disk(tmp_path), Storage())

    data_set = opened(tmp_path / "coco", tmp_path / "to")

    found = sorted(
        decode_truth(Storage().read(one.mask_uri), data_set.coding).tobytes()
        for one in data_set.found.split("default")
    )
    assert found == sorted(mask.tobytes() for mask in expected.values())
    for one in data_set.found.split("default"):
        assert Path(one.image_uri.removeprefix("file://")).is_file()
    assert [one.name for one in data_set.classes] == [f"class_{index}" for index in range(4)]
