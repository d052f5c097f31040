"""Read exports with other people's own libraries, and compare every pixel with what was exported.

    python tests/readers/read.py FOLDER

FOLDER has an export of each of the formats, by its name, expected.npz with the masks by their names
there, and names.json with the names by the images' keys. It runs in an environment that has those
libraries (`make readers`), and nothing of this project.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import datasets
import datumaro
import numpy as np
from datumaro.components.annotation import AnnotationType
from label_studio_sdk.converter import brush
from label_studio_sdk.label_interface import LabelInterface

Found = Iterator[tuple[str, np.ndarray]]
_IGNORED = 255


def main(folder: Path) -> int:
    """Read all exports; returns how many masks are not what they should be."""
    expected = dict(np.load(folder / "expected.npz"))
    names = json.loads((folder / "names.json").read_text())
    wrong = 0
    for form, read in (("hf", _hf), ("label-studio", _label_studio), ("voc", _voc)):
        found = {names.get(key, key): mask for key, mask in read(folder / form)}
        equal = [name for name in expected if np.array_equal(found.get(name), expected[name])]
        print(f"{form}: {len(found)} masks, {len(equal)} of {len(expected)} as expected")
        wrong += len(found.keys() | expected.keys()) - len(equal)
    return wrong


def _hf(folder: Path) -> Found:
    """Read with Hugging Face's `datasets`, by the features that the files name."""
    data = datasets.load_dataset(str(folder), split="train", cache_dir=str(folder.parent / "cache"))
    assert isinstance(data.features["mask"], datasets.Image), data.features
    for row in data:
        assert row["image"].size == row["mask"].size, row["key"]
        yield row["key"], np.asarray(row["mask"])


def _label_studio(folder: Path) -> Found:
    """Read with Label Studio's SDK, which checks tasks and predictions against the config."""
    interface = LabelInterface((folder / "label_config.xml").read_text())
    [tasks] = [json.loads(path.read_text()) for path in folder.glob("tasks_*.json")]
    for task in tasks:
        # Of a whole task it calls its own check of predictions without one.
        interface.validate_task({"data": task["data"]})
        [prediction] = task["predictions"]
        assert interface.validate_prediction(prediction), prediction
        size = tuple(prediction["result"][0][f"original_{side}"] for side in ("height", "width"))
        mask = np.full(size, _IGNORED, np.uint8)
        for one in prediction["result"]:
            lit = np.asarray(brush.decode_rle(one["value"]["rle"])).reshape(*size, 4)[..., 3] > 0
            mask[lit] = int(one["value"]["brushlabels"][0].removeprefix("class_"))
        yield task["data"]["key"], mask


def _voc(folder: Path) -> Found:
    """Read with Datumaro, which CVAT imports with, by the colours of labelmap.txt."""
    data = datumaro.Dataset.import_from(str(folder), "voc_segmentation")
    names = [one.name for one in data.categories()[AnnotationType.label]]
    for item in data:
        [*_, (height, width)] = [one.image.shape for one in item.annotations]
        mask = np.full((height, width), _IGNORED, np.uint8)
        for one in item.annotations:
            if names[one.label].startswith("class_"):
                mask[one.image.astype(bool)] = int(names[one.label].removeprefix("class_"))
        yield item.id, mask


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
