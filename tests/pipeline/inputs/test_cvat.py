"""Exports of CVAT ("Segmentation mask 1.1"), and ours that went through it, as data sets."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn.weights.classes import ClassLabel
from pipeline.errors import InputError, SettingError
from pipeline.export.voc import classes_json, labelmap
from pipeline.images.ground_truth import decode_truth
from pipeline.images.masks import encode_mask, make_palette
from pipeline.inputs.data_set import Asked, DataSet, open_data_set
from pipeline.inputs.inspect import Inspect
from pipeline.inputs.labelmap import class_indices, classes_of, parse_labelmap
from pipeline.labelling.records import ClassRecord
from pipeline.store.storage import Storage
from tests.disk_runs import random_pixels

_CVATS = """# label:color_rgb:parts:actions
background:0,0,0::
sky:51,221,255::
road:250,50,83::
"""
_COLOURS = np.array([(0, 0, 0), (51, 221, 255), (250, 50, 83)], np.uint8)
_OURS = [
    ClassRecord(id=0, name="sky", color=(70, 130, 180)),
    ClassRecord(id=1, name="road", color=(128, 64, 128)),
]


def voc(folder: Path, labels: str, masks: dict[str, Image.Image], **lists: list[str]) -> Path:
    """Write a VOC folder with PNG images."""
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    (folder / "labelmap.txt").write_text(labels)
    for index, (name, mask) in enumerate(masks.items()):
        picture = random_pixels(index, mask.height, mask.width, 3)
        for kind in ("JPEGImages", "SegmentationClass"):
            (folder / kind / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / f"JPEGImages/{name}.png")
        mask.save(folder / f"SegmentationClass/{name}.png")
    for subset, names in (lists or {"default": list(masks)}).items():
        (folder / f"ImageSets/Segmentation/{subset}.txt").write_text("\n".join(names) + "\n")
    return folder


def _lines(seed: int) -> np.ndarray:
    """Draw numbers of labelmap.txt's lines."""
    return random_pixels(seed, 5, 7) % 3


def truths(data_set: DataSet, split: str = "train") -> list[np.ndarray]:
    """Read the ground truth of a split."""
    some = data_set.found.split(split)
    return [decode_truth(Storage().read(one.mask_uri), data_set.coding) for one in some]


def opened(folder: Path, classes: Path | None = None, split: str = "train") -> DataSet:
    """Open a data set as `train` does."""
    return open_data_set(
        Storage(), Asked(f"file://{folder}", split, classes and f"file://{classes}")
    )


def _image(kind: str, lines: np.ndarray) -> Image.Image:
    if kind == "rgb":
        return Image.fromarray(_COLOURS[lines])
    # A palette in another order than labelmap.txt's.
    image = Image.fromarray(2 - lines)
    image.putpalette(_COLOURS[::-1].tobytes())
    return image if kind == "palette" else Image.fromarray(lines)


@pytest.mark.parametrize("kind", ["rgb", "palette", "grey"])
def test_labelmap_names_the_classes(tmp_path: Path, kind: str):
    """Its lines are the classes in order; RGB and palettes are read by colour, grey by line."""
    masks = {"a": _image(kind, _lines(0)), "b 01": _image(kind, _lines(1))}

    data_set = opened(voc(tmp_path / "set", _CVATS, masks))

    assert data_set.classes == tuple(
        ClassLabel(name, tuple(map(int, colour)))
        for name, colour in zip(("background", "sky", "road"), _COLOURS, strict=True)
    )
    np.testing.assert_array_equal(truths(data_set), [_lines(0), _lines(1)])


def test_classes_of_a_network_decide(tmp_path: Path):
    """With a classes file labels go by name: its order holds, a background unknown there is 255."""
    folder = voc(tmp_path / "set", _CVATS, {"a": _image("rgb", _lines(0))})
    (tmp_path / "classes.json").write_bytes(
        classes_json([_OURS[1].model_copy(update={"id": 0}), _OURS[0].model_copy(update={"id": 1})])
    )

    data_set = opened(folder, tmp_path / "classes.json")

    assert [label.name for label in data_set.classes] == ["road", "sky"]
    [truth] = truths(data_set)
    np.testing.assert_array_equal(truth, np.array([255, 1, 0], np.uint8)[_lines(0)])


def test_subsets_are_splits(tmp_path: Path):
    """Each list is a split of its own, names with spaces and folders included."""
    names = ("a", "deep/b c", "d.e")
    masks = {name: _image("rgb", _lines(at)) for at, name in enumerate(names)}

    folder = voc(tmp_path / "set", _CVATS, masks, train=["a", "d.e"], val=["deep/b c"])

    found = opened(folder).found
    assert {name: len(some) for name, some in found.splits.items()} == {"train": 2, "val": 1}
    np.testing.assert_array_equal(truths(opened(folder), "val"), [_lines(1)])


def test_a_real_export_can_be_inspected():
    """An export that CVAT has written: every image is there, and every colour is a class's."""
    folder = Path(__file__).parents[3].parent / "shared/cases/cvat-export/data"
    if not folder.is_dir():
        pytest.skip(f"the export is not at {folder}")
    data_set = opened(folder)
    samples = data_set.found.split("train")
    chunk = {
        "split": "train",
        "image_uris": [one.image_uri for one in samples],
        "mask_uris": [one.mask_uri for one in samples],
        "mask_offsets": [one.mask_offset for one in samples],
        "mask_bytes": [one.mask_bytes for one in samples],
        "image_offsets": [one.image_offset for one in samples],
        "image_bytes": [one.image_bytes for one in samples],
        "image_copies": [one.image_copy for one in samples],
    }

    findings = Inspect(Storage(), data_set.coding, 1 << 20, 60.0, 2)(chunk)["findings"]

    assert [one["problem"] for one in findings] == [""] * 4
    assert [label.name for label in data_set.classes] == [
        *("background", "road", "sky"),
        *("a", "b", "c"),
    ]
    assert all(sum(one["pixels"][:-1]) == 64 * 48 for one in findings)


@pytest.mark.parametrize("painted", [True, False])
@pytest.mark.parametrize("with_classes", [True, False])
def test_our_own_export_comes_back(tmp_path: Path, *, painted: bool, with_classes: bool):
    """The class indices are those that were exported and 255 stays 255, by colour and palette."""
    mask = np.array([[0, 1, 255], [1, 255, 0]], np.uint8)
    palette = make_palette([one.color for one in _OURS])
    folder = voc(tmp_path / "set", labelmap(_OURS), {"a": Image.fromarray(mask)})
    path = folder / "SegmentationClass/a.png"
    path.write_bytes(encode_mask(mask, palette, 1))
    if painted:  # as CVAT writes masks
        with Image.open(path) as image:
            image.convert("RGB").save(path)
    if with_classes:
        (folder / "classes.json").write_bytes(classes_json(_OURS))

    data_set = opened(folder)

    assert [label.name for label in data_set.classes] == ["sky", "road"]
    np.testing.assert_array_equal(truths(data_set), [mask])


def test_a_background_of_cvat_is_no_class_beside_our_classes(tmp_path: Path):
    """With the export's classes.json, pixels that people have erased are 255."""
    lines = labelmap(_OURS).splitlines()
    labels = "\n".join([lines[0], "background:0,0,0::", *lines[1:]])
    painted = np.array([[(70, 130, 180), (0, 0, 0), (224, 224, 192)]], np.uint8)
    folder = voc(tmp_path / "set", labels, {"a": Image.fromarray(painted)})
    (folder / "classes.json").write_bytes(classes_json(_OURS))

    [truth] = truths(opened(folder))

    assert truth.tolist() == [[0, 255, 255]]


def test_a_label_that_is_no_class_is_named(tmp_path: Path):
    """A label that the classes lack is an error with both."""
    folder = voc(tmp_path / "set", _CVATS, {"a": _image("rgb", _lines(0))})
    (folder / "classes.json").write_text(
        json.dumps({"classes": [{"id": 0, "name": "sky", "color": [0, 0, 9]}]})
    )

    with pytest.raises(InputError, match=r"has the label 'road', which is none of .*: sky"):
        opened(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sky:1,2,3::\nroad:1,2,3::", r"line 2: 'road' \(1, 2, 3\) has the name or the colour"),
        ("sky:1,2,3::\nsky:1,2,4::", "line 2: 'sky'"),
        ("sky:::", "line 1: 'sky:::' is no label"),
        ("sky:1,2,300::", "no colour of three values"),
        ("# nothing", "names no label"),
    ],
)
def test_a_bad_labelmap_is_named(text: str, words: str):
    """Lines that say nothing, or the same twice, are errors with their number."""
    with pytest.raises(InputError, match=words):
        parse_labelmap(text.encode(), "labelmap.txt")


def test_a_class_called_ignore_stays_one():
    """Where our export has named 255 otherwise, since a class is called ignore."""
    records = [ClassRecord(id=0, name="ignore", color=(1, 2, 3))]
    found = parse_labelmap(labelmap(records).encode(), "labelmap.txt")

    assert classes_of(found.colours) == ["ignore"]
    assert class_indices(found.colours, ["ignore"], "") == {"ignore": 0, "ignore_255": None}


def test_too_many_labels_are_refused(tmp_path: Path):
    """A mask holds 255 classes."""
    labels = "".join(f"c{at}:{at // 16},{at % 16},9::\n" for at in range(256))
    folder = voc(tmp_path / "set", labels, {"a": _image("rgb", _lines(0))})

    with pytest.raises(SettingError, match=r"labelmap\.txt: 256 classes"):
        opened(folder)
