"""Networks in the whole job: imported, labelled with on a real Ray, verified."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fcn
from fcn.architectures import ARCHITECTURES, WIDTH
from fcn.models import build
from jobs.__main__ import main
from pipeline.images.decode import decode_image
from tests.disk_runs import random_pixels

pytestmark = pytest.mark.runs


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, size in enumerate([(40, 52), (1, 1), (301, 290)]):
        Image.fromarray(random_pixels(index, *size, 3)).save(folder / f"{index}.png")
    return folder


def _masks(output: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.asarray(Image.open(path)) for path in output.glob("masks/*/*.png")}


def test_an_imported_network_labels_with_views_and_tiles(
    photos: Path, tmp_path: Path, ray_session: str
):
    """The job's masks are those of the library with the same checkpoint, views and tiles."""
    torch.manual_seed(0)
    network = build("fcn_all_skips", 4, width=4)
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    (tmp_path / "net.pth").write_bytes(buffer.getvalue())
    weights, output = str(tmp_path / "net.safetensors"), tmp_path / "output"
    source = ["--source", str(tmp_path / "net.pth"), "--output", weights]
    assert main(["import-weights", "--network", "fcn_all_skips", *source]) == 0

    places = ["--input", str(photos), "--output", str(output), "--weights", weights]
    choices = ["--flip", "--scales", "[0.5,1]", "--max-whole-pixels", "50000"]
    assert main(["label", *places, *choices]) == 0
    assert main(["verify", str(output)]) == 0

    loaded, record = fcn.load(weights)
    predictor = fcn.Predictor(loaded, record, flip=True, scales=(0.5, 1), max_whole_pixels=50000)
    for name, mask in _masks(output).items():
        [expected] = predictor.predict([decode_image((photos / f"{name}.png").read_bytes(), 10**9)])
        # The job scores in batches and in other threads: rounding may decide where classes tie.
        assert mask.shape == expected.mask.shape
        assert (mask != expected.mask).mean() < 1e-3


def test_other_views_are_another_fingerprint(photos: Path, tmp_path: Path, ray_session: str):
    """A run that was started without the flip is not continued with it."""
    places = ["--input", str(photos), "--output", str(tmp_path / "output"), "--weights", "random:0"]
    narrow = ["--width", "2", "--run-id", "night"]
    assert main(["label", *places, *narrow]) == 0
    assert main(["label", *places, *narrow, "--flip"]) == 6


@pytest.mark.parametrize("padding", ["paper", "tight"])
def test_the_paper_network_runs_as_a_job(
    photos: Path, tmp_path: Path, ray_session: str, padding: str
):
    """FCN-8s labels images of every size in the job, in both paddings."""
    places = ["--input", str(photos), "--output", str(tmp_path), "--weights", "random:0"]
    choices = ["--network", "fcn8s_vgg16", "--width", "2", "--padding", padding]
    assert main(["label", *places, *choices]) == 0
    assert {mask.shape for mask in _masks(tmp_path).values()} == {(40, 52), (1, 1), (301, 290)}


def test_every_network_can_be_planned(photos: Path, tmp_path: Path):
    """`random:SEED` knows every network by name, with the width that it has."""
    places = ["--input", str(photos), "--output", str(tmp_path), "--weights", "random:0"]
    for name, choices in ARCHITECTURES.items():
        width = ["--width", "4"] if WIDTH in choices else []
        assert main(["plan", *places, "--network", name]) == 0
        assert main(["plan", *places, "--network", name, *width]) == 0
    assert main(["plan", *places, "--network", "fcn_resnet50", "--width", "4"]) == 2
