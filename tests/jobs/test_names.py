"""A user's own folders called fcn, jobs or pipeline: one sentence says what is in the way."""

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.__main__ import main
from tests.product import REPOSITORY


def _own(folder: Path, name: str) -> Path:
    """Make a package of a user's own, or a module if the name has the ending of one."""
    path = folder / name if name.endswith(".py") else folder / name / "__init__.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    return folder / name


def _run(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder, env={"PYTHONPATH": f"{folder}:{REPOSITORY}", "PATH": "/usr/bin"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["fcn", "jobs", "pipeline", "pipeline.py"])
def test_the_command_names_what_hides_its_packages(name: str, tmp_path: Path):
    """`fcn` ends with 2 and one sentence that names the folder, the package and the remedy."""
    own = _own(tmp_path, name)

    done = _run(tmp_path, "-c", "import fcn_pipeline; fcn_pipeline.main()", "plan")

    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert f"{own} comes before fcn-pipeline's own package `{name.removesuffix('.py')}`" in line
    assert "rename it" in line


@pytest.mark.parametrize("name", ["fcn", "pipeline"])
def test_the_module_names_what_hides_its_packages(name: str, tmp_path: Path):
    """`python -m jobs`, which `submit` runs on a cluster, says the same of the other two."""
    own = _own(tmp_path, name)

    done = _run(tmp_path, "-m", "jobs", "plan")

    assert done.returncode == 2
    assert f"{own} comes before" in done.stderr


def test_a_folder_without_code_is_no_matter(tmp_path: Path):
    """A folder of these names that holds no package hides nothing."""
    (tmp_path / "pipeline").mkdir()

    assert _run(tmp_path, "-m", "jobs", "--help").returncode == 0


def test_a_working_dir_is_looked_at_before_it_is_sent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """`submit` refuses a folder whose own `pipeline` would hide ours; this project's is none."""
    words = ["--working-dir", str(tmp_path), "--address", "http://nowhere:1", "--", "models"]
    _own(tmp_path, "pipeline")

    assert main(["submit", *words]) == 2
    assert "its own pipeline would come before" in caplog.text
    caplog.clear()
    words[1] = str(REPOSITORY)
    assert main(["submit", *words]) == 2
    assert "'models' can't be submitted" in caplog.text
