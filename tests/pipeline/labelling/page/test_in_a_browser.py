"""The page of a run in a browser: it fits into the window of a telephone and of a desk."""

import re
from functools import partial
from pathlib import Path

import pytest

from fcn.weights.classes import ClassLabel
from fcn.weights.record import Checkpoint
from pipeline.labelling.history import History
from pipeline.labelling.network import Network
from pipeline.labelling.publish import publish
from pipeline.labelling.report import as_html
from tests.browser import CHROMIUM, screenshot, widths
from tests.disk_runs import draw_images, label_run, start_run

# Where Chromium asks for updates, the time and accounts.
_CHROMIUMS = re.compile(r"https?://([a-z0-9.-]+\.)?(googleapis|google|gvt1)\.com/")
_LONG = "a_class_whose_name_is_longer_than_any_legend_is_wide_" + "and_longer_" * 4


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of a run whose images, folders and classes have long names, and a failure."""
    folder = tmp_path_factory.mktemp("page")
    source = draw_images(folder, 5)
    deep = source / "/".join(["a_folder_without_a_space_in_its_name"] * 4)
    deep.mkdir(parents=True)
    (deep / "picture.png").write_bytes((source / "image_0.png").read_bytes())
    (deep / f"{'broken' * 30}.png").write_bytes(b"no picture")
    names = ("sky", _LONG, "樹" * 40, "<img src=http://evil.invalid/x>")
    classes = tuple(ClassLabel(name, (60 * at, 90, 0)) for at, name in enumerate(names))
    network = Network(Checkpoint("fcn_all_skips", classes, width=4), None, "fp32").record()
    run = start_run(folder, source, network)
    label_run(run)
    publish(run, partial(as_html, run, history=History(run.storage, run.output)))
    return Path(run.folder.removeprefix("file://")) / "report.html"


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [400, 420, 800, 1250])
def test_nothing_is_wider_than_the_window(page: Path, tmp_path: Path, width: int) -> None:
    """However long names are: there is no scrollbar across."""
    wanted, there = widths(page, width, tmp_path)

    assert there == width
    assert wanted <= there


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_it_asks_for_nothing(page: Path, tmp_path: Path) -> None:
    """A browser that writes down what it asks for has asked for the page, and for its own ends."""
    log = tmp_path / "net.json"
    screenshot(page, (900, 1250), tmp_path / "page.png", tmp_path, f"--log-net-log={log}")

    asked = set(re.findall(r'"url":"((?:https?|file)://[^"]*)"', log.read_text()))
    assert (tmp_path / "page.png").stat().st_size > 10_000
    assert {one for one in asked if not _CHROMIUMS.match(one)} <= {page.as_uri()}
