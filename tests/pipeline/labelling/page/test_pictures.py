"""Pictures of a page: no reason to wait for a store, and to keep a command from its end."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.images.overlay import as_webp, lay_over, light_up, shrink, shrink_mask
from pipeline.labelling.page import pictures
from pipeline.labelling.page.candidates import find_candidates
from pipeline.labelling.page.pictures import Pictures
from pipeline.labelling.page.reads import Deadline, in_a_hurry
from pipeline.labelling.publish import publish
from tests.disk_runs import draw_images, label_run, random_pixels, start_run
from tests.pipeline.labelling.page.two_files import in_two_files
from tests.pipeline.labelling.page.unsure_predictor import UnsurePredictor, confidence_of


def test_a_page_does_not_wait_for_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures that do not arrive within the time are named, and nothing waits for the others."""
    run = start_run(tmp_path, draw_images(tmp_path, 8))
    label_run(run)
    rows = find_candidates(run, publish(run, lambda _: ""), 8, Deadline.after(60)).random
    answered = threading.Event()

    def wait(*_: Any) -> None:
        answered.wait(60)

    monkeypatch.setattr(pictures, "_read", wait)
    began = time.monotonic()
    with Pictures(run, 288, Deadline.after(0.2)) as slow:
        assert list(slow.read(rows)) == []
    assert time.monotonic() - began < 30
    answered.set()

    assert [slow.unread[row["image_id"]] for row in rows] == [
        f"{row['key']}: not read in time" for row in rows
    ]


def test_a_store_is_asked_less_patiently(tmp_path: Path) -> None:
    """What reads pictures gives a silent store seconds, whatever the settings give the work."""
    run = start_run(tmp_path, draw_images(tmp_path, 1))

    impatient = in_a_hurry(run).storage

    assert impatient.patience_s <= 5 < run.storage.patience_s
    assert impatient.attempts <= 3 < run.storage.attempts


def test_candidates_are_those_of_the_tables(tmp_path: Path) -> None:
    """The least confident come by confidence, random ones by image_id, a class's by its share."""
    run = start_run(tmp_path, draw_images(tmp_path, 9), max_shard_images=2)
    label_run(run)
    manifest = publish(run, lambda _: "")
    [rows] = [table.to_pylist() for table in run.published(manifest, ["image_id", "uri"])]

    found = find_candidates(run, manifest, 4, Deadline.after(60))

    ids = sorted(row["image_id"] for row in rows)
    assert [row["image_id"] for row in found.random] == ids[:4]
    # All are equally sure, so the places decide.
    assert [row["uri"] for row in found.least_confident] == sorted(row["uri"] for row in rows)[:4]
    assert [row["image_id"] for row in found.of_class[0]] == ids[:-5:-1]
    assert all(0 < row["share"] < 1 for row in found.of_class[0])
    assert found.num_images == 9


def test_the_least_confident_come_first(tmp_path: Path) -> None:
    """Of unequal images the lowest confidences are kept, the lowest first, in whichever file."""
    run = start_run(tmp_path, draw_images(tmp_path, 9))
    label_run(run, UnsurePredictor())
    manifest = in_two_files(run, publish(run, lambda _: ""))
    sure = {f"image_{index}.png": _confidence(tmp_path, index) for index in range(9)}

    found = find_candidates(run, manifest, 3, Deadline.after(60))

    keys = [row["key"] for row in found.least_confident]
    assert keys == sorted(sure, key=lambda key: sure[key])[:3]
    assert keys != sorted(keys)


def _confidence(folder: Path, index: int) -> float:
    with Image.open(folder / f"in/image_{index}.png") as picture:
        return confidence_of(np.asarray(picture))


def test_an_overlay_tints_what_has_a_class() -> None:
    """A class is seen in its colour, 255 stays grey, and a spotlight is on one class alone."""
    pixels = np.full((8, 8, 3), 100, np.uint8)
    mask = np.zeros((8, 8), np.uint8)
    mask[:, 3:6], mask[:, 6:] = 1, 255
    colours = [(0, 0, 255), (255, 0, 0)]

    over, lit = lay_over(pixels, mask, colours), light_up(pixels, mask, 1, colours[1])

    assert over[0, 0].tolist() == [45, 45, 185]
    assert over[0, 4].tolist() == [185, 45, 45]
    assert over[0, 7].tolist() == [100, 100, 100]
    assert lit[0, 4].tolist() == [185, 45, 45]
    assert lit[0, 0].tolist() == [45, 45, 45]


def test_lines_between_classes_do_not_hide_a_mask_of_noise() -> None:
    """Where classes change from pixel to pixel there are none; between two areas there is one."""
    pixels = np.full((40, 60, 3), 100, np.uint8)
    mask = np.zeros((40, 60), np.uint8)
    mask[:, :20] = random_pixels(0, 40, 20) % 2
    mask[:, 50:] = 1
    without = [[45, 45, 185], [185, 45, 45]]

    over = lay_over(pixels, mask, [(0, 0, 255), (255, 0, 0)])

    noise = over[5:35, 5:15].reshape(-1, 3)
    assert sorted(map(list, set(map(tuple, noise.tolist())))) == without
    assert (over[:, 49] > without[0]).all()


def test_pictures_and_masks_shrink_alike() -> None:
    """Both have one size, no mask gets a new value, and a small picture is left as it is."""
    pixels, mask = random_pixels(0, 300, 517, 3), random_pixels(1, 300, 517) // 64 * 7

    small, small_mask = shrink(pixels, 100), shrink_mask(mask, 100)

    assert small.shape == (*small_mask.shape, 3) == (58, 100, 3)
    assert set(np.unique(small_mask)) <= set(np.unique(mask))
    assert shrink(small, 100).tolist() == small.tolist()


def test_noise_fits_into_few_bytes() -> None:
    """The quality is lowered, and then the size, until a picture is as small as it has to be."""
    noise = random_pixels(0, 200, 288, 3)

    assert len(as_webp(noise, 30_000)) <= 30_000 < len(as_webp(noise, 1 << 30))
    assert len(as_webp(noise, 1_000)) <= 1_000
