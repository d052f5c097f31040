"""Class maps: what a classes file says of other numbers and colours in ground truth."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import SettingError
from pipeline.images.ground_truth import NoClassError, decode_truth
from pipeline.inputs.data_set import Asked, DataSet, open_data_set
from pipeline.store.storage import Storage

_ROAD = {"id": 0, "name": "road", "color": [128, 64, 128]}
_CAR = {"id": 1, "name": "car", "color": [0, 0, 142]}


def _opened(folder: Path, truth: np.ndarray, classes: dict[str, Any]) -> tuple[DataSet, bytes]:
    """Open a data set of one image, and give its truth file."""
    for name in ("images", "masks"):
        (folder / "train" / name).mkdir(parents=True)
    data = io.BytesIO()
    Image.fromarray(truth).save(data, "PNG")
    (folder / "train/masks/a.png").write_bytes(data.getvalue())
    Image.new("RGB", truth.shape[1::-1]).save(folder / "train/images/a.png")
    (folder / "map.json").write_text(json.dumps(classes))
    asked = Asked(f"file://{folder}", "train", f"file://{folder}/map.json")
    return open_data_set(Storage(), asked), data.getvalue()


def test_numbers_are_merged_and_left_out(tmp_path: Path):
    """Several ids become one class; those that are not listed have none."""
    truth = np.array([[7, 9, 26, 8, 0, 255]], np.uint8)
    classes = {"classes": [_ROAD | {"ids": [7, 9]}, _CAR | {"ids": [26]}], "ignore": {"ids": [8]}}

    found, data = _opened(tmp_path, truth, classes)

    assert decode_truth(data, found.coding).tolist() == [[0, 0, 1, 255, 255, 255]]
    assert [one.name for one in found.classes] == ["road", "car"]


def test_colours_are_merged_and_ignored(tmp_path: Path):
    """Further colours are read as their class, ignored ones and black as none, others not."""
    truth = np.array([[_ROAD["color"], [9, 9, 9], [0, 0, 142], [7, 7, 7], [0, 0, 0]]], np.uint8)
    further = [_ROAD | {"colors": [[9, 9, 9]]}, _CAR]

    ignored = {"classes": further, "ignore": {"colors": [[7, 7, 7]]}}
    found, data = _opened(tmp_path / "ignored", truth, ignored)
    assert decode_truth(data, found.coding).tolist() == [[0, 0, 1, 255, 255]]

    found, data = _opened(tmp_path / "named", truth, {"classes": further})
    with pytest.raises(NoClassError, match=r"1 colours of no class: \(7, 7, 7\) in 1 pixels"):
        decode_truth(data, found.coding)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ({"classes": [_ROAD | {"ids": [7]}, _CAR | {"ids": [7]}]}, "7 stands for two classes"),
        ({"classes": [_ROAD | {"ids": [300]}]}, "ids are 0 to 255, and there is 300"),
        ({"classes": [_ROAD | {"colors": [7]}]}, "no valid classes file"),
        ({"classes": [_ROAD, _CAR | {"colors": [[128, 64, 128]]}]}, "stands for two classes"),
        ({"classes": [_ROAD | {"ids": "12"}]}, "no valid classes file: ids is '12'; ids are"),
        ({"classes": [_ROAD | {"colors": [[1, 2, 300]]}]}, r"from 0 to 255, not \[1, 2, 300\]"),
        ({"classes": [_ROAD | {"ids": [7]}], "ignore": {"ids": [7]}}, "7 stands for two classes"),
        ({"classes": [_ROAD], "ignore": {"ids": [3]}}, "ignore lists ids, and no class does"),
    ],
)
def test_a_map_that_says_two_things_is_refused(tmp_path: Path, classes: dict[str, Any], words: str):
    """Values of two classes, and what is no value, are errors of the setting that say which."""
    truth = np.zeros((1, 2, 3), np.uint8)
    with pytest.raises(SettingError, match=words):
        _opened(tmp_path, truth, classes)
