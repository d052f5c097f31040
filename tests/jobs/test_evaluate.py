"""`evaluate` on a real Ray, against an independent computation from the files."""

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fcn.weights.classes import parse_classes
from fcn.weights.files import random_network, save
from fcn.weights.record import Checkpoint
from jobs.__main__ import main
from jobs.evaluate import _asked, _chosen
from pipeline.inputs.data_set import open_data_set
from pipeline.settings.evaluate import EvaluateSettings
from pipeline.settings.train import TrainSettings
from pipeline.store.storage import Storage
from pipeline.training.plan import open_plan
from tests.jobs.training_product import scenes, scenes_in_bucket
from tests.product import in_tar
from tests.servers import Server

_NUM_CLASSES = 6


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 70 scenes, of which one truth has a pixel of a class in all ignored surroundings."""
    folder = scenes(tmp_path_factory.mktemp("scenes"), 1, 70)
    truth = np.full((32, 48), 255, np.uint8)
    truth[3, 4] = 2
    Image.fromarray(truth).save(folder / "val/masks/007.png")
    return folder


@pytest.fixture(scope="module")
def weights(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    classes = parse_classes((data / "classes.json").read_text())
    record = Checkpoint("fcn_all_skips", classes, width=4)
    record, tensors = save(record, random_network(record, 1))
    (folder / "model.safetensors").write_bytes(tensors)
    (folder / "model.json").write_text(record.to_json())
    return folder / "model.safetensors"


def evaluate(data: object, output: object, weights: object, *flags: object) -> int:
    places = ["--data", data, "--output", output, "--weights", weights]
    return main(["evaluate", *map(str, places), *map(str, flags)])


def the_evaluation(output: Path) -> Path:
    [folder] = [path for path in (output / "evaluations").iterdir() if path.name != "inputs"]
    return folder


def counts(folder: Path) -> np.ndarray:
    table = pq.read_table(folder / "confusion_matrix.parquet")
    matrix = np.zeros((_NUM_CLASSES, _NUM_CLASSES), np.int64)
    for row in table.to_pylist():
        matrix[row["truth_id"], row["predicted_id"]] = row["num_pixels"]
    return matrix


def _mask(output: Path, name: str) -> np.ndarray:
    """Read the one mask whose place ends so, out of a tar or as a file."""
    files = [path.read_bytes() for path in output.glob(f"masks/*/**/{name}")]
    tars = [path.read_bytes() for path in output.glob("masks/*/*.tar")]
    [png] = [*files, *(png for tar in tars for key, png in in_tar(tar) if key.endswith(name))]
    return np.asarray(Image.open(io.BytesIO(png)))


def by_numpy(data: Path, output: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Count n_ij pixel by pixel from the PNGs, in another way than the product."""
    total = np.zeros((_NUM_CLASSES, _NUM_CLASSES), np.int64)
    per_image = {}
    for path in sorted((data / "val/masks").iterdir()):
        truth, mask = np.asarray(Image.open(path)), _mask(output, f"{path.stem}.png.png")
        matrix = np.array(
            [
                [((truth == i) & (mask == j)).sum() for j in range(_NUM_CLASSES)]
                for i in range(_NUM_CLASSES)
            ]
        )
        per_image[path.stem] = matrix
        total += matrix
    return total, per_image


@pytest.mark.parametrize(
    "held_out",
    [
        {"val_match": "/00[0-3]"},
        {"val_fold": "1/3"},
        {"val_fold": "0/2", "val_group": r"/(\d\d)\d\.png"},
        {"val_share": 0.3},
        {"val_share": 0.3, "val_group": r"/(\d\d)\d\.png"},
    ],
    ids=" ".join,
)
def test_what_train_held_out_is_judged(tmp_path: Path, held_out: dict[str, Any]):
    """`evaluate --split train` takes, with the settings of `train`, the images that it left out."""
    data = str(scenes(tmp_path / "data", 70, 0, (8, 8)))
    asked = {"data": data, "output": str(tmp_path), "seed": 5, **held_out}
    plan = open_plan(TrainSettings(run_name="run", **asked))
    judged = EvaluateSettings(weights="w.safetensors", split="train", **asked)

    chosen = _chosen(open_data_set(Storage(), _asked(judged)).found.split("train"), judged)

    assert [one.image_uri for one in chosen] == plan.val["image_uri"].to_pylist()
    assert len(chosen) + plan.train.num_rows == 70


@pytest.mark.runs
@pytest.mark.parametrize("replicas", [1, 3])
def test_the_matrix_is_that_of_the_files(
    data: Path, weights: Path, tmp_path: Path, ray_session: str, replicas: int
):
    """To the last bit what NumPy counts from the PNGs, with one replica and with three."""
    flags = ("--min-replicas", replicas, "--cpus-per-replica", 1, "--max-shard-images", 16)
    if replicas == 3:
        flags = ("--min-replicas", 3, "--max-shard-images", 16)
    assert evaluate(data, tmp_path, weights, *flags) == 0

    folder = the_evaluation(tmp_path)
    expected, per_image = by_numpy(data, tmp_path)
    assert np.array_equal(counts(folder), expected)

    with np.errstate(invalid="ignore"):
        union = expected.sum(0) + expected.sum(1) - np.diag(expected)
        iu = np.diag(expected) / union
    found = json.loads((folder / "metrics.json").read_text())
    assert found["mean_iu"] == np.nanmean(np.where(expected.sum(1) > 0, iu, np.nan))
    assert found["pixel_accuracy"] == np.diag(expected).sum() / expected.sum()
    assert found["num_scored"] == 70

    rows = pq.read_table(folder / "images.parquet").to_pylist()
    assert len(rows) == 70
    for row in rows:
        matrix = per_image[Path(row["image_uri"]).stem]
        assert row["num_pixels"] == matrix.sum()
        assert row["pixel_accuracy"] == np.diag(matrix).sum() / matrix.sum()
    with Image.open(folder / "confusion_matrix.png") as picture:
        assert min(picture.size) > 300


def test_an_evaluation_rests_on_the_masks_that_are_there(
    data: Path, weights: Path, tmp_path: Path, ray_session: str, capfd: pytest.CaptureFixture[str]
):
    """What `label` has written is scored, here out of tars; a second call gives the same."""
    images = ["--input", str(data / "val/images"), "--output", str(tmp_path)]
    kind = ["--mask-name", "full", "--masks", "tar"]
    assert main(["label", *images, "--weights", str(weights), *kind]) == 0
    num_runs = len(list((tmp_path / "runs").iterdir()))

    assert evaluate(data, tmp_path, weights) == 0
    first = counts(the_evaluation(tmp_path))
    assert evaluate(data, tmp_path, weights) == 0

    assert len(list((tmp_path / "runs").iterdir())) == num_runs
    assert np.array_equal(counts(the_evaluation(tmp_path)), first)
    assert np.array_equal(first, by_numpy(data, tmp_path)[0])
    shown = capfd.readouterr().out
    for words in ("70 of 70 images of val scored", "mean IU", "sky", "confusion_matrix.parquet"):
        assert words in shown


@pytest.mark.runs
def test_a_bad_image_is_left_out_and_said(
    data: Path, weights: Path, tmp_path: Path, ray_session: str, capfd: pytest.CaptureFixture[str]
):
    """An image without a mask is not scored; the exit code is that of the labelling, 4."""
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data/val/images/003.png").write_bytes(b"no picture")

    whole = (data / "val/images/003.png").read_bytes()
    (tmp_path / "data/val/images/003.png").write_bytes(whole)
    assert evaluate(tmp_path / "data", tmp_path / "out", weights) == 0
    assert "70 of 70 images of val scored" in capfd.readouterr().out

    # Damaged since: the mask of the day before is not taken for it.
    (tmp_path / "data/val/images/003.png").write_bytes(b"no picture")
    assert evaluate(tmp_path / "data", tmp_path / "out", weights) == 4
    assert "69 of 70 images of val scored" in capfd.readouterr().out


def test_an_evaluation_in_a_bucket(weights: Path, s3: Server, ray_session: str):
    """Data, masks and results go through the bucket."""
    bucket, uri = scenes_in_bucket(s3, 1, 3)
    flags = ("--s3-endpoint-url", s3.endpoint_url)

    assert evaluate(uri, f"s3://{bucket}/out", weights, *flags) == 0

    keys = s3.objects(bucket, "out/evaluations/")
    names = {key.rpartition("/")[2] for key in keys}
    assert {"metrics.json", "images.parquet", "confusion_matrix.parquet"} < names


def test_what_can_not_be_evaluated_is_refused(
    data: Path, weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Other classes, a split that is not there and what `label` refuses are errors at once."""
    (tmp_path / "classes.json").write_text(
        json.dumps({"classes": [{"id": 0, "name": "all", "color": [0, 0, 0]}]})
    )
    assert evaluate(data, tmp_path / "out", weights, "--classes", tmp_path / "classes.json") == 2
    assert "the network has 6 classes (sky, ground" in caplog.text
    assert evaluate(data, tmp_path / "out", weights, "--split", "test") == 3
    assert "no split 'test'" in caplog.text
    assert evaluate(data, tmp_path / "out", weights, "--scales", "[99]") == 2
    assert "scales=[99]: 99.0 is not between 0.1 and 8.0" in caplog.text
    assert not (tmp_path / "out").exists()


def test_bad_truths_are_refused_before_anything_is_labelled(
    weights: Path, tmp_path: Path, ray_session: str, caplog: pytest.LogCaptureFixture
):
    """All are named at once, with sizes and values; a split that has no class at all is refused."""
    data, out = scenes(tmp_path / "data", 1, 4), tmp_path / "out"
    masks = data / "val/masks"
    Image.new("L", (5, 4)).save(masks / "001.png")
    Image.new("L", (48, 32), 77).save(masks / "002.png")
    assert evaluate(data, out, weights) == 3
    assert "2 of 4 samples can't be used" in caplog.text
    assert "001.png is (4, 5), its image is (32, 48)" in caplog.text
    assert "002.png: values outside of 0 to 5" in caplog.text

    for path in masks.iterdir():
        Image.new("L", (48, 32), 255).save(path)
    assert evaluate(data, out, weights) == 3
    assert "no truth has a pixel of any class" in caplog.text
    assert not (out / "runs").exists()


def test_what_is_unknown_is_null(
    weights: Path, tmp_path: Path, ray_session: str, capfd: pytest.CaptureFixture[str]
):
    """Where the only image with classes in its truth is bad, metrics.json is JSON all the same."""
    data, out = scenes(tmp_path / "data", 1, 2), tmp_path / "out"
    (data / "val/images/000.png").write_bytes(b"no picture")
    Image.new("L", (48, 32), 255).save(data / "val/masks/001.png")

    assert evaluate(data, out, weights) == 4

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    text = (the_evaluation(out) / "metrics.json").read_text()
    found = json.loads(text, parse_constant=refuse)
    assert (found["num_scored"], found["num_pixels"], found["mean_iu"]) == (1, 0, None)
    assert set(found["classes"].values()) == {None}
    assert "mean IU unknown" in capfd.readouterr().out


@pytest.mark.runs
def test_a_mask_that_is_gone_is_a_broken_promise(
    weights: Path, tmp_path: Path, ray_session: str, caplog: pytest.LogCaptureFixture
):
    """It ends with 1 and names the mask; without the run's folders the same command labels anew."""
    data, out = scenes(tmp_path / "data", 1, 3), tmp_path / "out"
    assert evaluate(data, out, weights) == 0
    [mask] = out.glob("masks/*/**/001.png.png")
    mask.write_bytes(b"damaged")
    assert evaluate(data, out, weights) == 1
    assert "001.png.png can't be read: no readable PNG" in caplog.text

    mask.unlink()
    assert evaluate(data, out, weights) == 1
    assert f"mask file://{mask} is gone" in caplog.text
    assert "class_statistics/run=RUN and evaluate again" in caplog.text
    assert "run the same command again" not in caplog.text
    assert main(["verify", str(out)]) == 1

    [run] = (out / "runs").iterdir()
    for folder in list(out.glob(f"*/*{run.name}")):
        shutil.rmtree(folder)
    assert evaluate(data, out, weights) == 0


@pytest.mark.runs
@pytest.mark.parametrize("form", ["parquet", "tar"])
def test_what_lies_in_shards_is_scored_as_files_are(
    data: Path, weights: Path, tmp_path: Path, ray_session: str, form: str
):
    """Images and ground truth in Parquet files, or in tars, give the matrix of the same files."""
    names = [f"{number:03d}.png" for number in range(12)]
    pairs = [
        [(data / f"val/{kind}/{name}").read_bytes() for kind in ("images", "masks")]
        for name in names
    ]
    shards = tmp_path / "shards"
    (shards / "val").mkdir(parents=True)
    (shards / "classes.json").write_bytes((data / "classes.json").read_bytes())
    for number in range(2):
        some, some_names = pairs[number::2], names[number::2]
        if form == "parquet":
            columns = {"image": [one for one, _ in some], "label": [one for _, one in some]}
            pq.write_table(pa.table(columns), shards / f"val/{number:05d}.parquet")
            continue
        with tarfile.open(shards / f"val/{number:06d}.tar", "w") as tar:
            for name, pair in zip(some_names, some, strict=True):
                for ending, content in zip(("png", "seg.png"), pair, strict=True):
                    member = tarfile.TarInfo(f"{Path(name).stem}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    few = tmp_path / "few"
    for kind in ("images", "masks"):
        (few / "val" / kind).mkdir(parents=True)
        for name in names:
            shutil.copy(data / f"val/{kind}/{name}", few / f"val/{kind}/{name}")
    shutil.copy(data / "classes.json", few)

    assert evaluate(few, tmp_path / "of-files", weights) == 0
    assert evaluate(shards, tmp_path / "of-shards", weights) == 0

    folders = [the_evaluation(tmp_path / name) for name in ("of-files", "of-shards")]
    assert np.array_equal(*map(counts, folders))
    assert pq.read_table(folders[1] / "images.parquet").num_rows == len(names)
