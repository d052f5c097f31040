"""The first numbers of a page: those of the manifest, and how they differ from the last run."""

from pathlib import Path

import pytest

from pipeline.labelling.page.tiles import Tile, make_tiles
from pipeline.labelling.runs import Run
from tests.disk_runs import draw_images, start_run
from tests.pipeline.labelling.page.made_manifests import make_manifest, make_work


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a run that knows what an hour of a node costs."""
    return start_run(tmp_path, draw_images(tmp_path, 1), price_per_node_hour=3.5)


def test_the_tiles_say_the_numbers_and_their_changes(run: Run) -> None:
    """Each value is the manifest's own, each change the difference from the run before."""
    last = make_manifest(
        num_images=2_000,
        num_ok=1_990,
        num_failed=10,
        mean_confidence=0.75,
        work=make_work(100.0),
        price_per_thousand_images=0.05,
    )
    this = make_manifest(
        num_images=4_000,
        num_ok=3_900,
        num_failed=100,
        mean_confidence=0.8125,
        work=make_work(160.0),
        price_per_thousand_images=0.0375,
        num_skipped=1_234,
    )

    assert make_tiles(run, this, last) == [
        Tile("Masks", "3,900", "of 4,000 images", "+1,910"),
        Tile("Failed", "100", "2.5\u202f% of the images", "+2.0 points", "warn"),
        Tile("Mean confidence", "0.812", "over all images with a mask", "+0.062"),
        Tile("Images/s", "25.0", "without pauses and start-up", "+5.0"),
        Tile("Cost per thousand", "0.0375", "at 3.5 per node hour", "\u22120.0125"),
        Tile("Done before", "1,234", "images that earlier runs have"),
    ]


def test_the_tiles_of_a_first_run_have_no_change(run: Run) -> None:
    """Without a run before it, and without failures, there are numbers alone."""
    this = make_manifest(mean_confidence=0.5, work=make_work(5), price_per_thousand_images=9.25)

    assert make_tiles(run, this, None) == [
        Tile("Masks", "10", "of 10 images"),
        Tile("Failed", "0", "every image has a mask"),
        Tile("Mean confidence", "0.500", "over all images with a mask"),
        Tile("Images/s", "2.0", "without pauses and start-up"),
        Tile("Cost per thousand", "9.2500", "at 3.5 per node hour"),
    ]


def test_tiles_are_left_out_that_nothing_is_known_of(run: Run) -> None:
    """Without seconds and a price there is neither speed nor cost, and no change of either."""
    this = make_manifest(mean_confidence=0.5)
    last = make_manifest(work=make_work(5), price_per_thousand_images=1.0)

    names = ["Masks", "Failed", "Mean confidence"]
    assert [tile.name for tile in make_tiles(run, this, None)] == names
    assert [tile.name for tile in make_tiles(run, this, last)] == names
    assert [tile.change for tile in make_tiles(run, this, last)] == ["", "", ""]
