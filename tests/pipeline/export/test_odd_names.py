"""Images of odd names, in every form of export: none is lost, taken for another, or torn in two."""

import io
from pathlib import Path

import pytest
import webdataset
from PIL import Image
from pycocotools.coco import COCO

from jobs.__main__ import main
from pipeline.errors import SettingError
from pipeline.export.voc import labelmap
from pipeline.inputs.layouts import find_labelled
from pipeline.labelling.records import ClassRecord
from pipeline.store.extent import Extent
from pipeline.store.storage import Storage
from tests.disk_runs import random_pixels
from tests.pipeline.export.labelled_output import label, on_disk

_NAMES = (
    # What stands for a dot in WebDataset's keys may stand in a name.
    *("a.b.jpg", "a%2Eb.jpg", "a%252Eb.jpg", "%2E.jpg"),
    # What some take for the end of a line.
    *("a\u2028b.jpg", "a\x85b.jpg", "a\x0bb.jpg", "a\x1cb.jpg", "a\nb.jpg", "a\rb.jpg"),
    *(" a .jpg", "#a.jpg", "tab\tbed.jpg", "\"quoted'.jpg", "back\\slash.jpg", "a;b,c|d&e.jpg"),
    # A file, and a folder of the name that the file would get.
    *("x.jpeg", "x.jpg/b.jpg", "X.JPG/c.jpg"),
    *("-rf.jpg", "deep/default.jpg", "deep/.hidden.jpg", "\u202egpj.jpg", "A.B.jpg"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with in/ and out/; every image has a height of its own."""
    folder = tmp_path_factory.mktemp("odd")
    for at, name in enumerate(_NAMES):
        path = folder / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random_pixels(at, 9 + at, 8, 3)).save(path)
    label(on_disk(folder), on_disk(folder / "in"), "night-1")
    return folder


def _export(place: Path, to: Path, form: str) -> Path:
    assert main(["export", str(place / "out"), "--format", form, "--to", str(to)]) == 0
    return to


_HEIGHTS = {9 + at for at in range(len(_NAMES))}


@pytest.mark.parametrize("form", ["voc", "webdataset"])
def test_odd_names_come_back_into_training(place: Path, tmp_path: Path, form: str) -> None:
    """What `train` reads of an export are all images, each beside the mask of its own size."""
    folder = _export(place, tmp_path / form, form)
    found = find_labelled(Storage(), on_disk(folder))
    [samples] = found.splits.values()
    heights = []
    for sample in samples:
        sizes = {_size(sample.image), _size(sample.mask)}
        assert len(sizes) == 1, sample
        heights.append(sizes.pop()[1])
    assert sorted(heights) == sorted(_HEIGHTS)


def _size(place: Extent) -> tuple[int, int]:
    with Image.open(io.BytesIO(Storage().read_extent(place))) as image:
        return image.size


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the library's
def test_webdataset_finds_a_sample_for_every_odd_name(place: Path, tmp_path: Path) -> None:
    """No two names give one key, of which the library would make one sample."""
    folder = _export(place, tmp_path / "shards", "webdataset")
    [tar] = folder.glob("*.tar")
    samples = list(webdataset.WebDataset(str(tar), shardshuffle=False).decode("pil"))
    assert {one["mask.png"].size[1] for one in samples} == _HEIGHTS
    assert len({one["__key__"] for one in samples}) == len(samples) == len(_NAMES)


def test_coco_finds_a_file_for_every_odd_name(place: Path, tmp_path: Path) -> None:
    """Each image of the JSON is a file of that size."""
    folder = _export(place, tmp_path / "coco", "coco")
    coco = COCO(str(folder / "annotations" / "instances_default.json"))
    for one in coco.imgs.values():
        with Image.open(folder / "images" / one["file_name"]) as image:
            assert image.size == (one["width"], one["height"])
    assert {one["height"] for one in coco.imgs.values()} == _HEIGHTS


@pytest.mark.parametrize("name", ["", "a\u2028b", "a\x85b", "a\rb", " a", "#a", "a:b"])
def test_voc_has_no_class_that_is_torn_in_its_list(name: str) -> None:
    """What a reader of labelmap.txt could take for two lines, a comment or nothing is refused."""
    with pytest.raises(SettingError, match="can't be called"):
        labelmap([ClassRecord(id=0, name=name, color=(1, 2, 3))])
