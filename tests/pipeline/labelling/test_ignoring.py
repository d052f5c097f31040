"""`--ignore-below` and `--mask-colors`: tables, totals and masks agree whatever is chosen."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from fcn.weights.classes import numbered_classes
from fcn.weights.record import Checkpoint
from pipeline.images.ground_truth import Coding, decode_truth
from pipeline.images.masks import IGNORE_INDEX, decode_mask
from pipeline.labelling.network import Network
from pipeline.labelling.publish import publish
from pipeline.labelling.records import Manifest
from pipeline.labelling.runs import Run
from pipeline.labelling.verify import verify
from tests.disk_runs import (
    NUM_CLASSES,
    FakePrediction,
    RedPredictor,
    draw_images,
    label_run,
    predict_red,
    start_run,
)


class _Unsure(RedPredictor):
    """Is unsure of the first row of every image."""

    def predict(self, images: list[NDArray[np.uint8]]) -> list[FakePrediction | None]:
        return [_without_first_row(image) for image in images]


def _without_first_row(image: NDArray[np.uint8]) -> FakePrediction:
    kept = predict_red(image[1:])
    ignored = np.full((1, image.shape[1]), IGNORE_INDEX, np.uint8)
    mask = np.concatenate([ignored, kept.mask])
    return FakePrediction(mask, kept.class_pixels, kept.class_confidence, 0.4, ignored.size, 0.25)


def _run(folder: Path) -> tuple[Run, Manifest]:
    run = start_run(folder, draw_images(folder, 4))
    label_run(run, _Unsure())
    return run, publish(run, lambda _: "")


def test_what_is_ignored_is_counted(tmp_path: Path) -> None:
    """The counts of an image sum to its pixels, and `ignore` has a row and a total of its own."""
    run, manifest = _run(tmp_path)

    rows = pq.read_table(f"{tmp_path}/out/class_statistics/run={run.run_id}").to_pylist()
    ignored = [row for row in rows if row["class_id"] == IGNORE_INDEX]
    assert [(row["class_name"], row["pixel_count"]) for row in ignored] == [("ignore", 7)] * 4
    assert {row["mean_confidence"] for row in ignored} == {0.25}
    assert sum(row["pixel_fraction"] for row in rows) == pytest.approx(4)
    assert sum(label.num_pixels for label in manifest.classes) == manifest.num_pixels
    last = manifest.classes[-1]
    assert (last.id, last.name, last.num_images) == (IGNORE_INDEX, "ignore", 4)


def test_verify_agrees_with_what_is_ignored(tmp_path: Path) -> None:
    """Masks, tables and totals with ignored pixels are whole."""
    run, _ = _run(tmp_path)

    assert not verify(run, 2).breaks


def test_a_run_that_ignores_nothing_has_no_such_class(tmp_path: Path) -> None:
    """The totals name the network's classes alone."""
    run = start_run(tmp_path, draw_images(tmp_path, 2))
    label_run(run)

    assert [label.id for label in publish(run, lambda _: "").classes] == [*range(NUM_CLASSES)]


def test_training_leaves_ignored_pixels_out(tmp_path: Path) -> None:
    """A mask of `label` is a truth as it is, whose 255 is no class."""
    run, _ = _run(tmp_path)
    png = run.storage.read(f"{run.masks_folder}/image_0.png")

    truth = decode_truth(png, Coding("indices", NUM_CLASSES))

    assert (truth[0] == IGNORE_INDEX).all()
    assert truth[1:].max() < NUM_CLASSES


def test_what_is_ignored_decides_the_mask() -> None:
    """It is in the fingerprint; without it the fingerprint is what it was before one could."""
    checkpoint = Checkpoint("fcn_all_skips", numbered_classes(4), width=4)
    plain, same, other = (
        Network(checkpoint, None, "fp32", ignore_below=below).record() for below in (0.0, 0, 0.6)
    )

    assert plain.fingerprint == same.fingerprint != other.fingerprint
    assert "ignore_below" not in plain.deciding
    assert other.deciding["ignore_below"] == 0.6


def test_grey_masks_are_as_good(tmp_path: Path) -> None:
    """With mask_colors=none a run is whole, and its masks have the same indices in grey."""
    source = draw_images(tmp_path, 3)
    grey = start_run(tmp_path, source, mask_colors="none", run_id="grey")
    label_run(grey)
    publish(grey, lambda _: "")
    (tmp_path / "other").mkdir()
    plain = start_run(tmp_path / "other", source)
    label_run(plain)

    assert not verify(grey, 2).breaks
    for name in ("image_0.png", "image_1.png", "image_2.png"):
        png = grey.storage.read(f"{grey.masks_folder}/{name}")
        # PNG specification, 11.2.2: colour type 0 is grey.
        assert png[25] == 0
        same = decode_mask(plain.storage.read(f"{plain.masks_folder}/{name}"))
        assert decode_mask(png).tolist() == same.tolist()
