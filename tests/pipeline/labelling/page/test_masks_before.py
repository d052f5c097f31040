"""The masks of the run before, of another network, beside this run's."""

import base64
import io
import re
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fcn.weights.classes import ClassLabel
from fcn.weights.record import Checkpoint
from pipeline.labelling.history import History
from pipeline.labelling.network import Network
from pipeline.labelling.page import pictures
from pipeline.labelling.page.pictures import Picture, Pictures
from pipeline.labelling.page.reads import Deadline
from pipeline.labelling.publish import publish
from pipeline.labelling.records import Manifest, NetworkRecord
from pipeline.labelling.report import as_html
from pipeline.labelling.runs import Run
from tests.disk_runs import FakePrediction, RedPredictor, label_run, network_record, start_run

_NUMBER = 14


class _AllOfOne(RedPredictor):
    """Gives every pixel of an image one class, as sure as it is told."""

    def __init__(self, class_id: int, confidence: float) -> None:
        super().__init__()
        self._class_id, self._confidence = class_id, confidence

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[FakePrediction | None]:
        return [self._of(one) for one in images]

    def _of(self, image: NDArray[np.uint8]) -> FakePrediction:
        mask = np.full(image.shape[:2], self._class_id, np.uint8)
        pixels = np.bincount(mask.ravel(), minlength=4)
        sure = np.where(pixels > 0, self._confidence, np.nan)
        return FakePrediction(mask, pixels, sure, self._confidence)


def _greys(folder: Path) -> Path:
    """Write pictures of two halves, brighter and brighter; a page takes some for duplicates."""
    source = folder / "in"
    source.mkdir()
    random = np.random.default_rng(0)
    for at in range(_NUMBER):
        blocks = random.integers(0, 256, (6, 8, 1), np.uint8)
        pixels = np.kron(blocks, np.ones((8, 8, 3), np.uint8))
        Image.fromarray(pixels).save(source / f"{at}.png")
    return source


def _two_runs(
    folder: Path, first: NetworkRecord | None = None, masks: str = "files"
) -> tuple[list[Run], list[Manifest]]:
    """Label with a network that is sure of class 1, then with one that doubts class 2."""
    source = _greys(folder)
    networks = [first or network_record("random:0"), network_record("random:1")]
    predictors = [_AllOfOne(1, 0.9), _AllOfOne(2, 0.4)]
    runs, manifests = [], []
    for at, (network, predictor) in enumerate(zip(networks, predictors, strict=True)):
        run = start_run(folder, source, network, run_id=f"night-{at}", masks=masks)
        label_run(run, predictor)
        runs.append(run)
        manifests.append(publish(run, lambda _: ""))
    return runs, manifests


def _page(run: Run, manifest: Manifest) -> str:
    return as_html(run, manifest, history=History(run.storage, run.output), num_pictures=120)


def _gallery(page: str) -> str:
    gallery = page[page.index("<h3>Less sure than") :]
    return gallery[: gallery.index("<h3>", 1)]


def _mean_colours(gallery: str) -> list[NDArray[np.float64]]:
    """Return what each mask of the run before tints its picture with, over the photograph."""
    drawn = re.findall(r'<img src="data:image/webp;base64,([^"]*)" alt="([^"]*)"', gallery)
    means = {}
    found = []
    for data, what in drawn:
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            means[what] = np.asarray(picture).mean(axis=(0, 1))
        if what == "its mask of the run before":
            found.append(means[what] - 0.45 * means["photograph"])
    return found


@pytest.mark.parametrize("masks", ["files", "tar"])
def test_both_networks_masks_are_shown(tmp_path: Path, masks: str) -> None:
    """Beside this run's mask lies that of the run before, in its class's colour, named."""
    runs, manifests = _two_runs(tmp_path, masks=masks)

    gallery = _gallery(_page(runs[1], manifests[1]))

    tints = _mean_colours(gallery)
    expected = 0.55 * np.array(manifests[0].classes[1].color)
    assert len(tints) == gallery.count('alt="photograph"') > 0
    for tint in tints:
        assert np.abs(tint - expected).max() < 12
    assert gallery.count("<i>the run before</i>") == len(tints)


def test_a_copy_of_an_output_shows_the_masks_of_the_copy(tmp_path: Path) -> None:
    """Where an output was moved, both masks are read where they lie now."""
    runs, manifests = _two_runs(tmp_path)
    shutil.move(tmp_path / "out", tmp_path / "moved")
    moved = replace(runs[1], output=runs[1].output.replace("/out", "/moved"))

    gallery = _gallery(_page(moved, manifests[1]))

    assert len(_mean_colours(gallery)) == gallery.count('alt="photograph"') > 0


def test_without_the_mask_of_the_run_before_there_is_one_picture(tmp_path: Path) -> None:
    """Where masks are gone the card is as everywhere else, and one note says why."""
    runs, manifests = _two_runs(tmp_path)
    shutil.rmtree(tmp_path / "out/masks/run=night-0")

    page = _page(runs[1], manifests[1])

    gallery = _gallery(page)
    assert gallery.count('alt="its mask"') == gallery.count('alt="photograph"') > 0
    assert 'alt="its mask of the run before"' not in gallery
    assert len(re.findall("<li>[0-9]+ masks? of the run before, from that of ", page)) == 1
    assert "picture(s) could not be read" not in page


def test_a_page_does_not_wait_for_masks_of_the_run_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What does not arrive within the page's time is left out, and a reason is kept."""
    run = start_run(tmp_path, _greys(tmp_path))
    answered = threading.Event()
    monkeypatch.setattr(pictures, "_read_mask", lambda *_: answered.wait(60))
    row = {"key": "a.png", "mask_before": {}}
    shown = Picture(row, np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.uint8), 0)

    with Pictures(run, 288, Deadline.after(0.2)) as slow:
        assert list(slow.read_before([shown])) == [None]
    answered.set()

    assert slow.no_mask_before == ["a.png: not read in time"]


def test_a_class_of_both_networks_has_one_colour(tmp_path: Path) -> None:
    """It is that of this run, whatever number and colour the class had; others are explained."""
    ours = network_record().classes
    names = ["<b>gone</b>", ours[3].name, "unused", "other"]
    classes = tuple(ClassLabel(name, (250, 9 * at, 0)) for at, name in enumerate(names))
    checkpoint = Checkpoint("fcn_all_skips", classes, width=4, weights_sha256="random:0")
    runs, manifests = _two_runs(tmp_path, Network(checkpoint, None, "fp32").record())

    gallery = _gallery(_page(runs[1], manifests[1]))

    expected = 0.55 * np.array(ours[3].color)
    tints = _mean_colours(gallery)
    assert tints
    for tint in tints:
        assert np.abs(tint - expected).max() < 12
    assert "Classes of the run before alone" not in gallery


def test_classes_of_the_run_before_alone_are_explained(tmp_path: Path) -> None:
    """What its masks show and this run's network does not know is named with its colour."""
    names = ["background", "<b>gone</b>", "unused", "other"]
    classes = tuple(ClassLabel(name, (250, 9 * at, 0)) for at, name in enumerate(names))
    checkpoint = Checkpoint("fcn_all_skips", classes, width=4, weights_sha256="random:0")
    runs, manifests = _two_runs(tmp_path, Network(checkpoint, None, "fp32").record())

    gallery = _gallery(_page(runs[1], manifests[1]))

    [words] = re.findall(r"Classes of the run before alone: (.*)", gallery)
    assert "rgb(250, 9, 0)" in words
    assert "&lt;b&gt;gone&lt;/b&gt;" in words
    assert "unused" not in words
