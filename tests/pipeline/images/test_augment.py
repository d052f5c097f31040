"""Augmentation: image and truth stay together, and a seed is a view."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fcn.inference.scorer import _scaled_pixels
from fcn.inference.tiling import whole
from pipeline.images.augment import Augment
from pipeline.store.storage import sha256_hex
from tests.disk_runs import random_pixels

_SIZE = (40, 60)


def _sample() -> tuple[np.ndarray, np.ndarray]:
    """Blocks of 4 x 4 pixels whose red value is ten times their class."""
    classes = np.random.default_rng(0).integers(0, 10, (10, 15), dtype=np.uint8)
    truth = classes.repeat(4, 0).repeat(4, 1)
    return np.stack([truth * 10, truth, truth], -1), truth


def test_nothing_to_vary_changes_nothing():
    """Without crop, scale, flip and colour the view is the image."""
    image, truth = _sample()

    view, mask = Augment()(image, truth, [1, 2])

    assert np.array_equal(view, image)
    assert np.array_equal(mask, truth)


@pytest.mark.parametrize("seed", range(20))
def test_image_and_truth_are_cut_alike(seed: int):
    """At scale 1 every pixel of the view has its class, flipped or not; what is added has none."""
    image, truth = _sample()

    view, mask = Augment(crop=(30, 80), flip=True)(image, truth, [seed])

    assert view.shape == (30, 80, 3)
    assert mask.shape == (30, 80)
    assert (mask == 255).sum() == 30 * 20
    kept = mask != 255
    assert np.array_equal(view[kept][:, 0], mask[kept] * 10)


@pytest.mark.parametrize("scale", [0.5, 0.77, 1.6])
def test_scaled_views_keep_classes_where_their_pixels_are(scale: float):
    """Where the truth is uniform around a pixel, the scaled image has that class's colour."""
    image, truth = _sample()

    view, mask = Augment(scales=(scale, scale))(image, truth, [0])

    assert mask.shape == (round(40 * scale), round(60 * scale))
    assert view.shape[:2] == mask.shape
    same = np.abs(view[..., 0].astype(int) - 10 * mask.astype(int)) < 10
    assert same.mean() > (0.7 if scale > 1 else 0.25)


def test_a_seed_is_a_view():
    """The same seed draws the same view, others draw others."""
    image, truth = random_pixels(0, *_SIZE, 3), random_pixels(1, *_SIZE) % 5
    varied = Augment(crop=(24, 24), scales=(0.5, 2.0), flip=True, colour=0.3)

    views = [varied(image, truth, [7, number])[0] for number in (1, 1, 2, 3)]

    assert np.array_equal(views[0], views[1])
    assert not np.array_equal(views[1], views[2])
    assert not np.array_equal(views[2], views[3])


def test_small_images_are_padded_without_a_class():
    """An image of one pixel fills a crop: one pixel has its class, the others none."""
    image, truth = np.full((1, 1, 3), 9, np.uint8), np.zeros((1, 1), np.uint8)

    view, mask = Augment(crop=(8, 8))(image, truth, [3])

    assert view.shape == (8, 8, 3)
    assert (mask == 0).sum() == 1
    assert (mask == 255).sum() == 63


def test_all_places_of_a_large_image_are_shown():
    """Crops start anywhere from the first to the last possible row and column."""
    truth = np.arange(5 * 5, dtype=np.uint8).reshape(5, 5)
    image = np.stack([truth] * 3, -1)

    corners = {int(Augment(crop=(3, 3))(image, truth, [seed])[1][0, 0]) for seed in range(200)}

    assert corners == {0, 1, 2, 5, 6, 7, 10, 11, 12}


@pytest.mark.parametrize("seen_at", [0.5, 0.7, 1.3])
def test_the_network_sees_what_labelling_shows_it(seen_at: float):
    """Unvaried, the view is the image as `Scorer` scales it, but for rounding to whole values."""
    image, truth = random_pixels(0, *_SIZE, 3), random_pixels(1, *_SIZE) % 5
    size = (round(40 * seen_at), round(60 * seen_at))

    view, mask = Augment(seen_at=seen_at)(image, truth, [0])

    shown = _scaled_pixels(torch.from_numpy(image)[None], whole(size), size)[0].numpy()
    assert view.shape == (*size, 3)
    assert np.array_equal(mask, truth)
    assert np.abs(view - shown).max() < 1.01


@pytest.mark.parametrize("seen_at", [0.5, 0.7, 1.0, 1.3])
@pytest.mark.parametrize("scale", [0.61, 1.0, 1.4])
@pytest.mark.parametrize("crop", [None, (16, 17)])
def test_image_and_truth_are_aligned_at_every_scale(
    seen_at: float, scale: float, crop: tuple[int, int] | None
):
    """A ramp says where a pixel comes from: image and truth have the same place at their centres.

    The truth is off by at most half a pixel of the original, to both sides alike.
    """
    # Steep, so that rounding to whole values is little.
    rows, columns = np.mgrid[0:60, 0:63].astype(np.uint8)
    image = 4 * np.stack([rows, columns, rows], -1)
    augment = Augment(crop=crop, scales=(scale, scale), seen_at=seen_at)

    for axis, truth in enumerate((rows, columns)):
        offsets = []
        for seed in range(12):
            view, mask = augment(image, truth, [seed])
            seen = torch.from_numpy(view[..., axis].copy()).double()[None, None]
            shown = F.interpolate(seen, mask.shape, mode="bilinear")[0, 0].numpy()
            # Away from the border, beyond which a ramp does not go on.
            offsets.append((shown / 4 - mask)[3:-3, 3:-3])
        assert np.abs(offsets).max() < 1.2
        # An eighth of a pixel is the rounding of its values.
        assert abs(np.mean(offsets)) < 0.3


def test_a_crop_is_filled_where_the_image_can_fill_it():
    """No scale is drawn that leaves a part of the crop grey, if the largest one fills it."""
    image, truth = _sample()
    fits = Augment(crop=(40, 60), scales=(0.5, 1.5))
    small = Augment(crop=(80, 120), scales=(0.5, 1.5))

    assert not any((fits(image, truth, [seed])[1] == 255).any() for seed in range(50))
    assert all((small(image, truth, [seed])[1] == 255).any() for seed in range(5))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("seen_at", [1.0, 0.5])
def test_image_and_truth_turn_alike(seed: int, seen_at: float):
    """Inside of a block every pixel has its class; corners from beyond the edge have none."""
    classes = np.random.default_rng(1).integers(0, 10, (4, 5), dtype=np.uint8)
    truth = classes.repeat(16, 0).repeat(16, 1)
    image = np.stack([truth * 10, truth * 10, truth * 10], -1)

    view, mask = Augment(rotation=30.0, seen_at=seen_at)(image, truth, [seed])

    assert mask.shape == truth.shape
    mask = mask[int(0.5 / seen_at) :: int(1 / seen_at), int(0.5 / seen_at) :: int(1 / seen_at)]
    kept = mask != 255
    assert (~kept).sum() < 0.35 * mask.size
    same = np.abs(view[kept][:, 0].astype(int) - 10 * mask[kept]) < 5
    assert same.mean() > 0.75
    unlike = np.abs(view[kept][:, 0].astype(int) - 10 * np.roll(mask, 3, 0)[kept]) < 5
    assert unlike.mean() < same.mean() - 0.1


def test_hues_move_around_their_circle():
    """Red becomes another colour as bright as it was; grey stays; the truth is what it was."""
    image = np.full((4, 4, 3), (200, 20, 20), np.uint8)
    image[2:] = 90
    truth = np.arange(16, dtype=np.uint8).reshape(4, 4)

    views = [Augment(hue=0.5)(image, truth, [seed]) for seed in range(5)]

    assert len({view[0, 0].tobytes() for view, _ in views}) == 5
    for view, mask in views:
        assert abs(int(view[0, 0].max()) - 200) <= 2
        assert np.abs(view[2:].astype(int) - 90).max() <= 1
        assert np.array_equal(mask, truth)


def test_a_blur_smooths_the_image_alone():
    """Differences between neighbours get smaller, the mean stays, and so does the truth."""
    image, truth = random_pixels(0, 40, 40, 3), random_pixels(1, 40, 40)

    view, mask = Augment(blur=3.0)(image, truth, [1])

    rough = [np.abs(np.diff(one.astype(int), axis=1)).mean() for one in (image, view)]
    assert rough[1] < 0.7 * rough[0]
    assert abs(view.mean() - image.mean()) < 3
    assert np.array_equal(mask, truth)


def test_what_is_not_varied_draws_no_numbers():
    """A view with hue, blur and rotation of 0 is that of versions which knew none."""
    image, truth = _sample()
    plain = Augment(crop=(24, 24), flip=True, colour=0.3)
    assert sha256_hex(plain(image, truth, [5])[0].tobytes())[:16] == "4e0eb9ef74177a3a"
