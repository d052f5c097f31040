"""The loop on drawn scenes: a weak network, twenty corrections through a format, and it learns."""

import datetime as dt
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as rle

from jobs.__main__ import main
from jobs.demo.scenes import CLASSES
from pipeline.images.brush import pack
from tests.jobs.training_product import scenes, train

pytestmark = pytest.mark.runs

_NETWORK = ("--width", 4, "--crop", "[32,48]", "--learning-rate", 0.005)


@pytest.fixture(scope="module")
def weak(ray_session: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with scenes/, a network that saw few of them, and what it labels: out/."""
    folder = tmp_path_factory.mktemp("loop")
    scenes(folder / "scenes", 40, 10)
    scenes(folder / "few", 4, 1)
    shutil.rmtree(folder / "few/val")
    flags = (*_NETWORK, "--epochs", 4, "--batch-size", 4)
    assert train(folder / "few", folder / "models", "weak", *flags) == 0
    images = ["--input", folder / "scenes/train/images", "--output", folder / "out"]
    arguments = [*images, "--weights", _model(folder, "weak")]
    assert main(["label", *map(str, arguments)]) == 0
    table = ["--least-confident", "20", "--to", str(folder / "look.parquet")]
    assert main(["select", str(folder / "out"), *table]) == 0
    return folder


def _model(folder: Path, name: str) -> Path:
    return folder / f"models/{name}/model.safetensors"


def _mean_iu(folder: Path, name: str) -> float:
    output = folder / f"judged-{name}"
    places = ["--data", folder / "scenes", "--output", output, "--weights", _model(folder, name)]
    assert main(["evaluate", *map(str, places)]) == 0
    [metrics] = output.glob("evaluations/*/metrics.json")
    return json.loads(metrics.read_text())["mean_iu"]


def _truth(folder: Path, stem: str) -> np.ndarray:
    with Image.open(folder / f"scenes/train/masks/{stem}.png") as image:
        return np.asarray(image)


def _correct_voc(folder: Path, export: Path) -> Path:
    """Paint the truth, as CVAT writes it: RGB, its background first, no classes.json, no images."""
    colours = np.array([colour for _, colour in CLASSES], np.uint8)
    for path in (export / "SegmentationClass").iterdir():
        Image.fromarray(colours[_truth(folder, path.stem)]).save(path)
    lines = (export / "labelmap.txt").read_text().splitlines()
    (export / "labelmap.txt").write_text("\n".join([lines[0], "background:0,0,0::", *lines[1:]]))
    (export / "classes.json").unlink()
    return export


def _correct_coco(folder: Path, export: Path) -> Path:
    """Pack the truth as the annotations of each image."""
    path = export / "annotations/instances_default.json"
    found = json.loads(path.read_text())
    found["annotations"] = []
    for image in found["images"]:
        truth = _truth(folder, Path(image["file_name"]).stem)
        for index in np.unique(truth).tolist():
            packed = rle.encode(np.asfortranarray(truth == index, np.uint8))
            outline = {"size": packed["size"], "counts": packed["counts"].decode()}
            one = {"image_id": image["id"], "category_id": index + 1, "segmentation": outline}
            found["annotations"].append({"id": len(found["annotations"]) + 1, **one})
    path.write_text(json.dumps(found))
    return path


def _png(mask: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def _correct_webdataset(folder: Path, export: Path) -> Path:
    """Write the tar anew, with the truth for each mask."""
    path = export / "shard-000000.tar"
    with tarfile.open(path) as tar:
        files = {one.name: tar.extractfile(one) for one in tar}
        contents = {name: file.read() for name, file in files.items() if file}
    with tarfile.open(path, "w") as tar:
        for name, data in contents.items():
            key, _, ending = name.partition(".")
            new = _png(_truth(folder, key)) if ending == "mask.png" else data
            member = tarfile.TarInfo(name)
            member.size = len(new)
            tar.addfile(member, io.BytesIO(new))
    return export


def _correct_hf(folder: Path, export: Path) -> Path:
    """Write the Parquet file anew, with the truth for each mask."""
    path = export / "data/train-00000.parquet"
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        row["mask"]["bytes"] = _png(_truth(folder, Path(row["key"]).stem))
    pq.write_table(pa.Table.from_pylist(rows), path)
    return export


def _correct_label_studio(folder: Path, export: Path) -> Path:
    """Submit every task with the truth, as Label Studio's Export has it in its form JSON."""
    tasks = json.loads((export / "tasks_00000.json").read_text())
    for task in tasks:
        truth = _truth(folder, Path(task["data"]["key"]).stem)
        size = {"original_height": truth.shape[0], "original_width": truth.shape[1]}
        results = [
            {
                "type": "brushlabels",
                **size,
                "value": {
                    "format": "rle",
                    "rle": pack(truth == index),
                    "brushlabels": [CLASSES[index][0]],
                },
            }
            for index in np.unique(truth).tolist()
        ]
        now = dt.datetime.now(dt.UTC).isoformat()
        task["annotations"] = [{"result": results, "was_cancelled": False, "updated_at": now}]
    # Beside what was imported there.
    (export / "project-1-at-2026-11-28.json").write_text(json.dumps(tasks))
    return export


_CORRECT: dict[str, Callable[[Path, Path], Path]] = {
    "voc": _correct_voc,
    "coco": _correct_coco,
    "webdataset": _correct_webdataset,
    "hf": _correct_hf,
    "label-studio": _correct_label_studio,
}


@pytest.mark.timeout(600)  # two trainings, two evaluations and a labelling
@pytest.mark.parametrize("form", _CORRECT)
def test_twenty_corrections_make_a_better_network(weak: Path, form: str):
    """Trained on alone, from the weak network's weights, they raise the mean IU on other scenes."""
    export = weak / "export" / form
    wanted = ["--selection", str(weak / "look.parquet"), "--to", str(export)]
    assert main(["export", str(weak / "out"), "--format", form, *wanted]) == 0
    corrected = _CORRECT[form](weak, export)
    classes = ("--classes", weak / "models/weak/model.json")

    flags = (*_NETWORK, "--batch-size", 5, "--epochs", 40, "--weights", _model(weak, "weak"))
    assert train(corrected, weak / "models", form, *classes, *flags) == 0

    before, after = (_mean_iu(weak, one) for one in ("weak", form))
    assert after > before + 0.1
