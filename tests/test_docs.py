"""The documentation is run: commands, queries, links, and what it says of files and codes."""

import re
import shlex
from pathlib import Path

import duckdb
import numpy as np
import pytest

from fcn.weights.classes import numbered_classes
from fcn.weights.files import random_network, save
from fcn.weights.record import Checkpoint
from jobs.__main__ import COMMANDS, _usage, main
from jobs.settings.parser import read_settings
from pipeline.errors import ErrorCode
from pipeline.settings.cluster import DoctorSettings, SubmitSettings
from pipeline.settings.label import LabelSettings
from pipeline.settings.weights import ImportSettings
from tests.disk_runs import random_pixels
from tests.product import REPOSITORY

_README = (REPOSITORY / "README.md").read_text()
_OPERATIONS = (REPOSITORY / "docs" / "operations.md").read_text()


def blocks(language: str, text: str = _README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture(scope="module")
def after_demo(ray_session: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder in which `make demo` has been run: its recipe is `python -m jobs demo`."""
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
    # The demo's checkpoint has not been trained on these scenes.
    assert float(re.search(r"mean IU ([0-9.]+)", shown).group(1)) >= 0.85
    assert main(["report", "demo/output"]) == 0
    shown = capfd.readouterr().out
    for words in ("/masks/run=", "/class_statistics/run=", "report.html", "sky",
                  "broken/bomb.png: too_many_pixels", "56 of 61 images have a mask"):  # fmt: skip
        assert words in shown


@pytest.mark.parametrize(
    ("text", "number"), [(_README, 6), (_OPERATIONS, 4)], ids=["README", "ops"]
)
def test_the_commands_of_the_docs_run(
    after_demo: Path, monkeypatch: pytest.MonkeyPatch, text: str, number: int
):
    """Every `fcn` line of an `sh` block runs as it stands, after `make demo`."""
    monkeypatch.chdir(after_demo)
    lines = [line for block in blocks("sh", text) for line in block.splitlines()]
    commands = [line for line in lines if "fcn " in line]

    codes = [main(shlex.split(line)[1:]) for line in commands]

    assert codes == [0] * number


def test_the_queries_of_the_docs_run(after_demo: Path, monkeypatch: pytest.MonkeyPatch):
    """They give a row per image, class shares that sum to one, and the failures by code."""
    monkeypatch.chdir(after_demo)

    newest, shares = (duckdb.sql(query).fetchall() for query in blocks("sql"))

    assert len(newest) == 61
    assert sum(share for _, _, share, _ in shares) == pytest.approx(1)
    [failures] = (duckdb.sql(query).fetchall() for query in blocks("sql", _OPERATIONS))
    assert sum(number for _, number, _ in failures) == 5


def test_the_python_of_the_readme_runs(tmp_path: Path):
    """The README's Python labels an image with a checkpoint and scores the mask."""
    record = Checkpoint("fcn_all_skips", numbered_classes(3), width=2)
    record, data = save(record, random_network(record, 0))
    (tmp_path / "voc.safetensors").write_bytes(data)
    (tmp_path / "voc.json").write_text(record.to_json())
    [code] = blocks("python")
    code = code.replace("s3://models", str(tmp_path)).replace("cuda", "cpu")
    names = {"image": random_pixels(0, 40, 50, 3), "truth": np.zeros((40, 50), np.uint8)}

    exec(compile(code, "README.md", "exec"), names)

    assert names["prediction"].confidence.shape == (40, 50)


def test_the_commands_about_buckets_take_their_flags():
    """Lines that need the network, a bucket or a cluster have flags that there are."""
    found = [*blocks("bash"), *blocks("bash", _OPERATIONS)]
    lines = [line for block in found for line in block.splitlines()]
    kinds = {"import-weights": ImportSettings, "label": LabelSettings, "doctor": DoctorSettings}

    for line in lines:
        _, command, *flags = shlex.split(line)
        if command == "submit":
            place = flags.index("--")
            assert read_settings(SubmitSettings, command, flags[:place], {}).address
            command, *flags = flags[place + 1 :]
        if "--config" in flags:  # it lies in a bucket
            del flags[flags.index("--config") : flags.index("--config") + 2]
        assert read_settings(kinds[command], command, flags, {}).output.startswith("s3://")
    assert len(lines) == 6


def test_make_targets_of_the_readme_exist():
    """Every `make` line of the README names a target of the Makefile."""
    targets = re.findall(r"^make (\w+)$", _README, re.MULTILINE)
    makefile = (REPOSITORY / "Makefile").read_text()

    assert targets == ["demo", "test"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/operations.md"]
)
def test_links_lead_somewhere(name: str):
    """Every relative link names a file of the repository."""
    text = (REPOSITORY / name).read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", text)

    folder = (REPOSITORY / name).parent
    assert [link for link in links if not (folder / link).exists()] == []


def test_codes_are_documented():
    """Every error code of an image, and every exit code, stands in the README and the help."""
    transient, permanent = re.search(
        r"Transient,(.*?)\nPermanent:(.*?)\n", _README, re.DOTALL
    ).groups()  # fmt: skip

    for code in ErrorCode:
        assert f"`{code}`" in (transient if code.transient else permanent)
    for number in range(8):
        assert f"| {number} | " in _README
        assert number == 0 or f"| {number} | " in _OPERATIONS
        assert re.search(rf"^  {number}  ", _usage(), re.MULTILINE)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]):
    """`fcn COMMAND --help` prints its flags and exits 0, and the README names the command."""
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])

    assert ended.value.code == 0
    assert f"usage: fcn {command}" in capsys.readouterr().out
    assert re.search(rf"(fcn|make) +{command}", _README)
