"""The page of a run: whole by itself, true, and safe whatever images and classes are called."""

import html
import re
import tarfile
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from PIL import Image

from fcn.weights.classes import ClassLabel
from fcn.weights.record import Checkpoint
from pipeline.labelling.history import History
from pipeline.labelling.network import Network
from pipeline.labelling.page import charts, galleries
from pipeline.labelling.page import page as page_of_a_run
from pipeline.labelling.publish import publish
from pipeline.labelling.records import ClassTotal, Manifest, NetworkRecord
from pipeline.labelling.report import as_html
from pipeline.labelling.runs import Run
from pipeline.settings.label import REPORT_IMAGES
from tests.disk_runs import draw_images, label_run, network_record, random_pixels, start_run
from tests.pipeline.labelling.page.unsure_predictor import UnsurePredictor

_HOSTILE = "<img src=http://evil/x onerror=alert(1)>"


def _run(folder: Path, number: int = 6, **fields: Any) -> tuple[Run, Manifest]:
    run = start_run(folder, draw_images(folder, number), **fields)
    label_run(run)
    return run, publish(run, partial(as_html, run, history=History(run.storage, run.output)))


def _labelled(run: Run) -> Run:
    label_run(run)
    return run


def _page(run: Run) -> str:
    return run.storage.read(f"{run.folder}/report.html").decode()


def _hostile_network() -> NetworkRecord:
    names = ("sky", _HOSTILE, "$\\frac$", "\u6a39")
    classes = tuple(ClassLabel(name, (9 * at, 0, 0)) for at, name in enumerate(names))
    return Network(Checkpoint("fcn_all_skips", classes, width=4), None, "fp32").record()


def test_a_page_stands_alone(tmp_path: Path) -> None:
    """It asks for nothing, runs nothing, forbids the browser both, and is below 3 MB."""
    run, _ = _run(tmp_path)

    page = _page(run)

    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert set(re.findall(r'src="(\w*)[:#]', page)) == {"data"}
    # Places in the page, and photographs, which a browser opens only when asked to.
    assert set(re.findall(r'href="(\w*)[:#]', page)) == {"", "file"}
    assert len(page) < 3_000_000


def test_ids_of_a_page_are_unlike(tmp_path: Path) -> None:
    """Each chart refers to its own shapes and clips."""
    page = _page(_run(tmp_path)[0])

    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', page)) <= {
        pair for name in ids for pair in ((name, ""), ("", name))
    }


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    """Names of images and classes with markup, formulas or foreign letters are only shown."""
    source = draw_images(tmp_path, 3)
    (source / "<b onclick=alert(1)>.png").write_bytes((source / "image_0.png").read_bytes())
    run = start_run(tmp_path, source, _hostile_network())
    label_run(run)
    publish(run, partial(as_html, run, history=History(run.storage, run.output)))

    page = _page(run)

    assert "<img src=http" not in page
    assert "<b onclick" not in page
    assert "&lt;b onclick=alert(1)&gt;" in page
    assert "\u6a39" in page
    assert "$\\frac$" in page


@pytest.mark.parametrize(("num_classes", "num_unseen"), [(15, 0), (16, 13), (200, 197)])
def test_many_classes_that_no_mask_has_are_one_line(
    tmp_path: Path, num_classes: int, num_unseen: int
) -> None:
    """Of 200 classes the table has those with pixels; a few without them are rows, too."""
    run, manifest = _run(tmp_path)
    page = as_html(
        run, _with_classes(manifest, num_classes), history=History(run.storage, run.output)
    )

    line = f"{num_unseen} more classes, of which no mask has a pixel"
    assert (line in page) == bool(num_unseen)
    assert page.count('<td><i class="swatch"') == num_classes - num_unseen
    assert f"class {num_classes - 1}</" in page


def test_a_class_of_the_last_run_stays_a_row(tmp_path: Path) -> None:
    """What is no longer there is news."""
    _, manifest = _run(tmp_path)
    found = page_of_a_run._unseen(_with_classes(manifest, 200), {"class 7": 0.25, "class 8": 0.0})
    assert [label.id for label in found] == [*range(3, 7), *range(8, 200)]


def _with_classes(manifest: Manifest, number: int) -> Manifest:
    """Give a manifest so many classes, of which three have pixels."""
    classes = [
        ClassTotal(
            id=at, name=f"class {at}", color=(at, 0, 0), num_pixels=9 * (at < 3), num_images=1
        )
        for at in range(number)
    ]
    return manifest.model_copy(update={"classes": classes})


def test_a_picture_that_cannot_be_read_is_a_note(tmp_path: Path) -> None:
    """An image that is gone, a mask that is gone, and a changed image are named, and no error."""
    run, manifest = _run(tmp_path)
    (tmp_path / "in/image_0.png").unlink()
    (tmp_path / "in/image_1.png").write_bytes(b"another picture")
    run.storage.remove(f"{run.masks_folder}/image_2.png")

    page = as_html(run, manifest, history=History(run.storage, run.output))

    assert "3 picture(s) could not be read" in page
    for name in ("image_0.png", "image_1.png", "image_2.png"):
        assert re.search(rf"<li>{name}: .{{10,}}</li>", page)


def test_masks_in_tars_are_shown(tmp_path: Path) -> None:
    """A page of a run with tars has as many pictures as one with files, and none is missing."""
    numbers = []
    for kind in ("files", "tar"):
        (tmp_path / kind).mkdir()
        page = _page(_run(tmp_path / kind, masks=kind)[0])
        assert "could not be read" not in page
        numbers.append(page.count("data:image/webp;base64,"))
    assert numbers[0] == numbers[1] > 0


def test_tables_that_cannot_be_read_are_a_note(tmp_path: Path) -> None:
    """Without its tables a run has its numbers and charts, and no pictures."""
    run, manifest = _run(tmp_path)
    run.storage.write(f"{run.output}/{manifest.images[0].file}", b"damaged")

    page = as_html(run, manifest, history=History(run.storage, run.output))

    assert "is damaged" in page
    assert "data:image/webp" not in page
    assert "Class mix" in page


@pytest.mark.parametrize("asked", [0, 5])
def test_so_many_pictures_are_copied_as_were_asked_for(tmp_path: Path, asked: int) -> None:
    """With 0 no picture is read or copied; the number is that of all images of the page."""
    run, manifest = _run(tmp_path, report_images=asked)

    page = as_html(run, manifest, history=History(run.storage, run.output))

    photographs = set(re.findall(r'<img src="([^"]+)" alt="photograph"', page))
    assert len(photographs) == asked
    assert ("No picture was copied" in page) is (asked == 0)


def test_near_duplicates_are_shown_once(tmp_path: Path) -> None:
    """Of pictures that look alike one stands in each gallery."""
    source = draw_images(tmp_path, 0)
    for index in range(3):
        pixels = np.kron(random_pixels(1, 6, 8, 3), np.ones((8, 8, 1), np.uint8))
        pixels[0, 0] = index
        Image.fromarray(pixels).save(source / f"same_{index}.png")
    run = start_run(tmp_path, source)
    label_run(run)
    manifest = publish(run, lambda _: "")

    page = as_html(run, manifest, history=History(run.storage, run.output))

    least = page[page.index("The least confident") :]
    least = least[: least.index("<h3>")]
    assert least.count('alt="photograph"') == 1
    found = re.search(r"(\d+) that look like one shown were passed over", page)
    assert found is not None
    assert int(found[1]) == 2, "each image counts once, in however many galleries it was met"
    assert "At random" not in page
    assert page.count("<h4>") == page.count('alt="photograph"') - 1, "one in each class's gallery"


@pytest.mark.parametrize(("number", "words"), [(1, "1 image"), (2, "2 images")])
def test_one_image_is_no_plural(tmp_path: Path, number: int, words: str) -> None:
    """The sentence over the pictures is right for one image, too."""
    run = start_run(tmp_path, draw_images(tmp_path, number))
    label_run(run)
    manifest = publish(run, lambda _: "")

    page = as_html(run, manifest, history=History(run.storage, run.output))

    assert f"Chosen among {words} with a mask" in page


@pytest.mark.parametrize("share", [0.3, 0.9, 1.0])
def test_no_class_has_more_than_all_pixels(share: float) -> None:
    """The axis of the class mix ends at 100 %, however much room the words beside a bar take."""
    pixels = round(1000 * share)
    classes = [
        ClassTotal(id=at, name=name, color=(at, 0, 0), num_pixels=number, num_images=1)
        for at, (name, number) in enumerate([("sky", pixels), ("road", 1000 - pixels)])
    ]
    drawn = charts.class_mix(classes, 1000, {})
    ticks = [float(one) for one in re.findall(r">([\d.]+)%<", drawn)]
    assert max(ticks) <= 100


def test_a_picture_leads_to_its_photograph(tmp_path: Path) -> None:
    """On a disk a browser follows its link, whatever the name; its whole place is the title."""
    source = tmp_path / "in"
    source.mkdir()
    place = source / 'a b#"><i>%41?.png'
    Image.fromarray(random_pixels(1, 9, 9, 3)).save(place)
    run = start_run(tmp_path, source)
    label_run(run)
    manifest = publish(run, lambda _: "")

    page = as_html(run, manifest, history=History(run.storage, run.output))

    [link] = set(re.findall(r'<a href="(file:[^"]*)"', page))
    assert Path(unquote(urlsplit(link).path)) == place
    assert f'title="{html.escape(f"file://{place}").replace("&quot;", "&#34;")}"' in page


def test_a_picture_that_no_link_leads_to_has_its_uri_as_text(tmp_path: Path) -> None:
    """What a browser can't open unfolds as text, the same text as in the tables, markup or not."""
    draw_images(tmp_path, 1)
    tar = tmp_path / "shots.tar"
    with tarfile.open(tar, "w") as file:
        file.add(tmp_path / "in/image_0.png", "a <i>b.png")
    run = start_run(tmp_path, tar)
    label_run(run)

    page = as_html(run, publish(run, lambda _: ""), history=History(run.storage, run.output))

    uris = set(re.findall(r'<details class="place">.*?<code>(.*?)</code>', page, re.DOTALL))
    assert {html.unescape(uri) for uri in uris} == {f"file://{tar}!/a <i>b.png"}
    assert '<a href="file:' not in page


def test_random_pictures_are_unlike_the_least_confident(tmp_path: Path) -> None:
    """A near-duplicate of what the first gallery shows is passed over in the second one, too."""
    source = draw_images(tmp_path, 4)
    pixels = np.kron(random_pixels(1, 6, 8, 3), np.ones((8, 8, 1), np.uint8))
    # By their names, the first gallery is full before it has met the others.
    for index, name in enumerate(["alike_0", "z_alike_1", "z_alike_2", "z_alike_3"]):
        pixels[0, 0] = index
        Image.fromarray(pixels).save(source / f"{name}.png")
    run = start_run(tmp_path, source)
    label_run(run)
    manifest = publish(run, lambda _: "")

    page = as_html(run, manifest, history=History(run.storage, run.output), num_pictures=8)

    least, random = page[page.index("The least confident") :].split("At random")
    assert least.count("<bdi>alike_0") == 1
    assert re.findall(r"<bdi>(\w+)\.png", random[: random.index("<h3>")]) == ["image_3"]


def test_a_page_says_how_many_pictures_its_classes_want(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where fewer than 4 of a class fit, it names the number with which they do, or the limit."""
    run, manifest = _run(tmp_path, 9)
    history = History(run.storage, run.output)

    few, enough = (
        as_html(run, manifest, history=history, num_pictures=number) for number in (20, 40)
    )

    assert "<code>--report-images 40</code> has room for 4 of each" in few
    assert "as many pictures as there could be" not in enough
    for gallery in enough.split("<h4>")[1:]:
        assert gallery.count('alt="photograph"') == 4
    monkeypatch.setattr(page_of_a_run, "MAX_REPORT_IMAGES", 30)
    limited = as_html(run, manifest, history=history, num_pictures=20)
    assert "40 would be needed, and a page has 30 at most" in limited


def test_each_of_21_classes_has_its_pictures_by_default() -> None:
    """A page has room for PASCAL VOC's classes, four of each, beside 12 doubtful and 12 others."""
    assert REPORT_IMAGES >= 12 + 12 + 4 * 21


def test_the_gallery_begins_with_the_least_confident(tmp_path: Path) -> None:
    """Its cards stand in order of their confidences, each with its own below the picture."""
    run = start_run(tmp_path, draw_images(tmp_path, 9))
    label_run(run, UnsurePredictor())
    manifest = publish(run, lambda _: "")
    [table] = run.published(manifest, ["key", "mean_confidence"])
    rows = sorted(table.to_pylist(), key=lambda row: row["mean_confidence"])

    page = as_html(run, manifest, history=History(run.storage, run.output), num_pictures=10)

    least = page[page.index("The least confident") : page.index("At random")]
    shown = re.findall(r"<bdi>(.*?)</bdi>.*?<b>(.*?)</b>", least, flags=re.DOTALL)
    assert shown == [(row["key"], f"{row['mean_confidence']:.3f}") for row in rows[:5]]


def test_a_table_of_the_run_before_that_is_gone_costs_no_picture(tmp_path: Path) -> None:
    """Where another network's run can't be read, this one's pictures are there, and a note."""
    source = draw_images(tmp_path, 3)
    runs = [
        _labelled(start_run(tmp_path, source, network_record(f"random:{at}"), run_id=f"night-{at}"))
        for at in range(2)
    ]
    manifests = [publish(run, lambda _: "") for run in runs]
    (tmp_path / "out" / manifests[0].images[0].file).unlink()

    page = as_html(runs[1], manifests[1], history=History(runs[1].storage, runs[1].output))

    assert "images are not compared with the run before: " in page
    assert page.count('alt="photograph"') >= 3


def test_images_that_another_network_was_surer_of_are_shown(tmp_path: Path) -> None:
    """The greatest loss comes first, with its change; a run of the same network shows none."""
    source = draw_images(tmp_path, 6)
    first = start_run(tmp_path, source, run_id="night-1")
    # It is half sure of each.
    label_run(first)
    publish(first, lambda _: "")
    second = start_run(tmp_path, source, network_record("random:1"), run_id="night-2")
    label_run(second, UnsurePredictor())
    manifest = publish(second, lambda _: "")
    [table] = second.published(manifest, ["key", "mean_confidence"])
    rows = sorted(table.to_pylist(), key=lambda row: row["mean_confidence"])
    lost = [row for row in rows if row["mean_confidence"] < 0.5]

    page = as_html(second, manifest, history=History(second.storage, second.output), num_pictures=3)

    gallery = page[page.index("Less sure than") : page.index("At random")]
    shown = re.findall(r"<bdi>(.*?)</bdi>.*?(\u2212[\d.]+) <b>", gallery, flags=re.DOTALL)
    # The most doubtful one is in the first gallery already.
    assert shown == [(lost[1]["key"], f"\u2212{0.5 - lost[1]['mean_confidence']:.3f}")]
    alone = as_html(
        first, publish(first, lambda _: ""), history=History(first.storage, first.output)
    )
    assert "Less sure than" not in alone


def test_marks_are_explained_where_there_are_any(tmp_path: Path) -> None:
    """Of a last run whose network has other classes no mark is in the charts, and none said."""
    source = draw_images(tmp_path, 2)
    first = _labelled(start_run(tmp_path, source, run_id="night-1"))
    publish(first, lambda _: "")
    second = _labelled(start_run(tmp_path, source, _hostile_network(), run_id="night-2"))
    manifest = publish(second, lambda _: "")

    page = as_html(second, manifest, history=History(second.storage, second.output))

    assert "another network" in page
    assert 'class="tick"' not in page


def test_the_page_is_compared_with_the_last_run_of_its_input(tmp_path: Path) -> None:
    """Changes are against the run before of the same input; another network is marked."""
    _run(tmp_path, 3, run_id="first")
    other = tmp_path / "other"
    other.mkdir()
    publish(_labelled(start_run(tmp_path, draw_images(other, 2), run_id="other-input")), str)
    second, _ = _run(tmp_path, 6, run_id="second")
    third, _ = _run(tmp_path, 6, run_id="third", weights="random:1")

    assert "last finished run of the same input: first, 3 images" in _page(second)
    assert "another network" not in _page(second)
    assert "Over the last runs" in _page(second)
    assert "last finished run of the same input: second" in _page(third)
    assert "made by <b>another network</b>" in _page(third)


def test_a_first_run_is_compared_with_nothing(tmp_path: Path) -> None:
    """It has no changes, no marks and no drift, and a later run does not alter its page."""
    run, manifest = _run(tmp_path, 3, run_id="first")
    before = _page(run)
    _run(tmp_path, 6, run_id="second")

    assert "the run before" not in before
    assert 'id="runs"' not in before
    assert as_html(run, manifest, history=History(run.storage, run.output)) == before


def test_an_old_manifest_has_a_page(tmp_path: Path) -> None:
    """What manifests of earlier versions do not say comes from the tables, or is left out."""
    run, manifest = _run(tmp_path)
    classes = [label.model_copy(update={"mean_confidence": None}) for label in manifest.classes]
    lacking = {"confidences": None, "timeline": None, "classes": classes, "mean_confidence": None}
    old = manifest.model_copy(update=lacking)

    page = as_html(run, old, history=History(run.storage, run.output))

    assert "How sure the network is" in page
    assert "Confidence by class" not in page
    assert "Throughput" not in page


def test_a_run_without_masks_has_a_page(tmp_path: Path) -> None:
    """Where every image failed there is nothing to draw, and the failures are shown."""
    source = draw_images(tmp_path, 0)
    (source / "bad.png").write_bytes(b"")
    run = start_run(tmp_path, source)
    label_run(run)
    manifest = publish(run, lambda _: "")

    page = as_html(run, manifest, history=History(run.storage, run.output))

    assert "0 of 1 images have a mask, 1 failed" in " ".join(page.split())
    assert "truncated" in page


@pytest.mark.parametrize("broken", ["charts", "template"])
def test_a_page_that_fails_costs_no_run(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Be it a chart or the template: the run is published, with its totals and a warning."""
    of, name = {"charts": (charts, "class_mix"), "template": (page_of_a_run, "_template")}[broken]
    monkeypatch.setattr(of, name, _raise)

    run, manifest = _run(tmp_path)

    assert run.finished()
    assert manifest.num_ok == 6
    assert "6 of 6 images have a mask" in _page(run)
    assert "ZeroDivisionError: a &lt;bug&gt;" in _page(run)
    assert "--html` makes it anew" in caplog.text


def test_pictures_that_fail_cost_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in what chooses or draws them is a note on the page, and a warning."""
    monkeypatch.setattr(galleries, "find_candidates", _raise)

    run, _ = _run(tmp_path)

    assert "ZeroDivisionError: a &lt;bug&gt;" in _page(run)
    assert "Class mix" in _page(run)
    assert "the report has no pictures" in caplog.text


def _raise(*_: object) -> NoReturn:
    raise ZeroDivisionError("a <bug>")
