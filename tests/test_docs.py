"""The documentation is run: commands, queries, links, and what it says of files and codes."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from PIL import Image

from fcn.weights.classes import numbered_classes, parse_classes, parse_truth_values
from fcn.weights.files import random_network, save
from fcn.weights.record import Checkpoint
from jobs.__main__ import COMMANDS, _usage, main
from jobs.demo.picture import draw_picture
from jobs.evaluate import _asked, _chosen
from jobs.settings.parser import read_settings
from pipeline.errors import ErrorCode
from pipeline.images.ground_truth import decode_truth
from pipeline.inputs.data_set import open_data_set
from pipeline.settings.cluster import DoctorSettings, SubmitSettings
from pipeline.settings.evaluate import EvaluateSettings
from pipeline.settings.label import LabelSettings
from pipeline.settings.train import TrainSettings
from pipeline.settings.weights import ImportSettings
from pipeline.training.plan import open_plan
from tests.disk_runs import random_pixels
from tests.product import REPOSITORY

_PAGES = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text()
    for path in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
}
_LINKING = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "infra/README.md")


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def lines(language: str, text: str) -> list[str]:
    found = (block.replace("\\\n", " ") for block in blocks(language, text))
    return [line for block in found for line in block.splitlines()]


def with_blocks(language: str) -> pytest.MarkDecorator:
    names = [name for name, text in _PAGES.items() if blocks(language, text)]
    return pytest.mark.parametrize("page", names)


@pytest.fixture(scope="module")
def after_demo(ray_session: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which `make demo` has been run: its recipe is `python -m jobs demo`."""
    folder = tmp_path_factory.mktemp("newcomer")
    recipe = re.search(r"^demo: install\n\t\$\(RUN\) (.*)$", (REPOSITORY / "Makefile").read_text(),
                       re.MULTILINE)  # fmt: skip
    assert recipe is not None
    assert recipe.group(1) == "-m jobs demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["demo"]) == 0
    return folder


def test_the_demo_shows_what_a_newcomer_wants_to_see(
    after_demo: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """A second demo finds nothing to do; the report names places, classes and failures."""
    monkeypatch.chdir(after_demo)
    assert main(["demo"]) == 0
    again = "Nothing to do: all 61 images were done before, 5 of them failed."
    shown = capfd.readouterr().out
    assert again in shown
    assert "28 of 28 images of val scored" in shown
    # The demo's checkpoint has seen few scenes like these.
    assert float(re.search(r"mean IU ([0-9.]+)", shown).group(1)) >= 0.6
    page = Path(re.search(r"^Open (\S+report\.html): ", shown, re.MULTILINE).group(1))
    assert page.read_text().count('alt="photograph"') == 52
    assert main(["report", "demo/output"]) == 0
    shown = capfd.readouterr().out
    for words in ("/masks/run=", "/class_statistics/run=", "report.html", "sky",
                  "broken/bomb.png: too_many_pixels", "56 of 61 images have a mask"):  # fmt: skip
        assert words in shown


@with_blocks("sh")
def test_the_commands_of_the_docs_run(after_demo: Path, monkeypatch: pytest.MonkeyPatch, page: str):
    """Every `fcn` line of an `sh` block runs after `make demo`; the others are `make`'s."""
    monkeypatch.chdir(after_demo)
    commands = [shlex.split(line) for line in lines("sh", _PAGES[page])]
    makefile = (REPOSITORY / "Makefile").read_text()

    for program, *arguments in commands:
        if program == "make":
            assert re.search(rf"^{arguments[0]}:", makefile, re.MULTILINE)
        else:
            assert (program, main(arguments)) == ("fcn", 0)


@with_blocks("sql")
def test_the_queries_of_the_docs_run(after_demo: Path, monkeypatch: pytest.MonkeyPatch, page: str):
    """Each gives rows of the demo's output."""
    monkeypatch.chdir(after_demo)

    assert all(duckdb.sql(query).fetchall() for query in blocks("sql", _PAGES[page]))


def test_the_queries_of_the_docs_are_right(after_demo: Path, monkeypatch: pytest.MonkeyPatch):
    """They give a row per image, class shares that sum to one, and the failures by code."""
    monkeypatch.chdir(after_demo)

    newest, shares, failures = (
        duckdb.sql(query).fetchall()
        for page in ("docs/output.md", "docs/operations.md")
        for query in blocks("sql", _PAGES[page])
    )

    assert len(newest) == 61
    assert sum(share for _, _, share, _ in shares) == pytest.approx(1)
    assert sum(number for _, number, _ in failures) == 5


def test_the_delta_table_of_the_docs_is_read(after_demo: Path, monkeypatch: pytest.MonkeyPatch):
    """The page's Python reads the rows of a run that was labelled with the page's flag."""
    monkeypatch.chdir(after_demo)
    command = "label --input demo/images --output demo/tables --run-id night-1 --delta-log"
    assert main([*command.split(), "--weights", "demo/weights/model.safetensors"]) in {0, 4}
    [code] = blocks("python", _PAGES["docs/output.md"])
    names: dict[str, Any] = {}

    exec(compile(code, "docs/output.md", "exec"), names)

    assert names["images"].num_rows == 61


@pytest.mark.parametrize(
    "page", [name for name in _PAGES if blocks("python", _PAGES[name]) and name != "docs/output.md"]
)
def test_the_python_of_the_docs_runs(tmp_path: Path, page: str):
    """Each page's Python labels an image with a checkpoint."""
    record = Checkpoint("fcn_all_skips", numbered_classes(3), width=2)
    record, data = save(record, random_network(record, 0))
    (tmp_path / "voc.safetensors").write_bytes(data)
    (tmp_path / "voc.json").write_text(record.to_json())
    [code] = blocks("python", _PAGES[page])
    code = code.replace("s3://models", str(tmp_path)).replace("cuda", "cpu")
    names = {"image": random_pixels(0, 40, 50, 3), "ground_truth": np.zeros((40, 50), np.uint8)}

    exec(compile(code, page, "exec"), names)

    assert names["prediction"].confidence.shape == (40, 50)


@with_blocks("bash")
def test_the_commands_about_buckets_take_their_flags(page: str):
    """Lines that need the network, a bucket or a cluster have flags that there are."""
    kinds = {
        "import-weights": ImportSettings,
        "label": LabelSettings,
        "doctor": DoctorSettings,
        "train": TrainSettings,
    }

    for line in lines("bash", _PAGES[page]):
        program, command, *flags = shlex.split(line)
        assert program == "fcn"
        if command == "submit":
            place = flags.index("--")
            assert read_settings(SubmitSettings, command, flags[:place], {}).address
            command, *flags = flags[place + 1 :]
        if "--config" in flags:  # it lies in a bucket
            del flags[flags.index("--config") : flags.index("--config") + 2]
        assert read_settings(kinds[command], command, flags, {}).output.startswith("s3://")


def _made_up_comma10k(folder: Path) -> None:
    """Lay out what a clone of comma10k has, and the classes file that the page shows."""
    text = next(text for text in blocks("json", _PAGES["docs/training.md"]) if "my_car" in text)
    (folder / "comma.json").write_text(text)
    colours = np.array([label.color for label in parse_classes(text)], np.uint8)
    for name in ("imgs", "masks"):
        (folder / "comma10k" / name).mkdir(parents=True)
        for number in (864, 79, 29):
            path = (
                folder / f"comma10k/{name}/00{number}_0085e9e41513078a_2018-08-19_11_{number}.png"
            )
            Image.fromarray(colours[np.arange(30).reshape(5, 6) % 5]).save(path)
    for name in ("imgs2", "masks2", "tools"):
        (folder / "comma10k" / name).mkdir()


def _made_up_voc(folder: Path) -> None:
    """Lay out what VOC's tar has, boundaries of 255 among it."""
    voc = folder / "VOCdevkit/VOC2012"
    lists = voc / "ImageSets/Segmentation"
    for place in (voc / "JPEGImages", voc / "SegmentationClass", voc / "Annotations", lists):
        place.mkdir(parents=True)
    for split, stems in (("train", "ab"), ("val", "c"), ("trainval", "abc")):
        (lists / f"{split}.txt").write_text("".join(f"2007_{stem}\n" for stem in stems))
    for stem in "abc":
        Image.new("RGB", (6, 5)).save(voc / f"JPEGImages/2007_{stem}.jpg")
        mask = Image.fromarray(np.array([[0, 15, 20, 255]], np.uint8)).resize((6, 5), 0)
        mask.putpalette([number % 256 for number in range(768)])
        mask.save(voc / f"SegmentationClass/2007_{stem}.png")


def test_the_commands_for_photographs_fit_their_data_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """On files that lie as the published ones: what trains and what judges is found and read."""
    monkeypatch.chdir(tmp_path)
    _made_up_comma10k(tmp_path)
    _made_up_voc(tmp_path)
    parts = []
    for line in lines("console", _PAGES["docs/training.md"]):
        program, command, *flags = shlex.split(line)
        if program == "mv":
            Path(command).rename(*flags)
        elif command == "import-weights":
            asked = read_settings(ImportSettings, command, flags, {})
            record = Checkpoint(asked.network, numbered_classes(asked.num_classes))
            (tmp_path / Path(asked.output).with_suffix(".json").name).write_text(record.to_json())
        elif command == "train":
            plan = open_plan(read_settings(TrainSettings, command, flags, {}))
            for table in (plan.train, plan.val):
                mask = Path(table["mask_uri"][0].as_py().removeprefix("file://"))
                decode_truth(mask.read_bytes(), plan.coding)
            parts.append((plan.train.num_rows, plan.val.num_rows, len(plan.classes)))
        elif command == "evaluate":
            judged = read_settings(EvaluateSettings, command, flags, {})
            samples = _chosen(
                open_data_set(judged.storage(), _asked(judged)).found.split(judged.split), judged
            )
            assert [one.image_uri for one in samples] == plan.val["image_uri"].to_pylist()
        else:
            assert program in {"git", "curl", "tar"}
    assert parts == [(1, 2, 5), (2, 1, 21)]


def test_every_block_is_of_a_kind_that_is_tested():
    """No block of code has another language than those above, a diagram's, or none."""
    languages = {
        language
        for text in _PAGES.values()
        for language in re.findall(r"^ *```(\w+)$", text, re.MULTILINE)
    }
    assert languages == {"sh", "bash", "console", "sql", "python", "mermaid", "json"}


@with_blocks("json")
def test_the_classes_files_of_the_docs_are_read(page: str):
    """A classes file that a page shows is one, with what stands for its classes."""
    for text in re.findall(r"^```json\n(.*?)^```", _PAGES[page], re.MULTILINE | re.DOTALL):
        assert len(parse_classes(text)) > 1
        assert bool(parse_truth_values(text).ids) == ('"ids"' in text)


@pytest.mark.parametrize("name", [*_PAGES, *_LINKING])
def test_links_lead_somewhere(name: str):
    """Every relative link names a file of the repository, and a heading that it has."""
    folder = (REPOSITORY / name).parent
    links = re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", (REPOSITORY / name).read_text())

    for link, anchor in links:
        path = folder / link if link else REPOSITORY / name
        assert path.exists(), link
        assert not anchor or anchor in anchors(path.read_text()), f"{link}#{anchor}"


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def test_every_page_can_be_reached():
    """The site's navigation and the README, between them, name every page."""
    site = (REPOSITORY / "mkdocs.yml").read_text()

    assert {name for name in _PAGES if name.startswith("docs/")} == {
        f"docs/{name}" for name in re.findall(r"([\w-]+\.md)", site) if name != "index.md"
    }


def test_the_picture_is_small_and_can_be_drawn(tmp_path: Path):
    """The README's picture is the product's own work, and no burden to who clones."""
    draw_picture(tmp_path / "demo.webp")

    kept = REPOSITORY / "docs" / "images" / "demo.webp"
    assert kept.stat().st_size < 150_000
    with Image.open(kept) as ours, Image.open(tmp_path / "demo.webp") as drawn:
        assert ours.size == drawn.size


def test_the_changelog_ends_at_the_version():
    """The newest section of the changelog is about the version of the project."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    changelog = (REPOSITORY / "CHANGELOG.md").read_text()

    newest = re.search(r"^## (?!Unreleased)(\S+)", changelog, re.MULTILINE)
    assert newest is not None
    assert newest[1] == project["version"]


def test_codes_are_documented():
    """Every error code of an image, and every exit code, stands in the docs and the help."""
    kinds = dict(re.findall(r"^\| `(\w+)` .*\| (\w+) \|$", _PAGES["docs/output.md"], re.MULTILINE))

    assert kinds == {code: "transient" if code.transient else "permanent" for code in ErrorCode}
    for number in range(8):
        assert f"| {number} | " in _PAGES["docs/resume-and-exit-codes.md"]
        assert number == 0 or f"| {number} | " in _PAGES["docs/operations.md"]
        assert re.search(rf"^  {number}  ", _usage(), re.MULTILINE)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]):
    """`fcn COMMAND --help` prints its flags and exits 0, and the docs name the command."""
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])

    assert ended.value.code == 0
    assert f"usage: fcn {command}" in capsys.readouterr().out
    assert any(re.search(rf"(fcn|make|`) ?{command}", text) for text in _PAGES.values())
