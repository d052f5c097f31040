"""Who may import whom: import-linter's contracts (pyproject.toml), and what they can't say.

They hold every module of the product, at any depth of a function. Here stand what is loaded at
start-up, and names.
"""

import subprocess
import sys
from pathlib import Path

import grimp
import pytest

from pipeline.labelling.publish import publish
from tests.disk_runs import draw_images, label_run, start_run

_ROOT = Path(__file__).parent.parent
_PACKAGES = ("fcn", "pipeline", "jobs")
# What loads Ray or torch is itself loaded once they are needed.
_HEAVY = frozenset(
    f"pipeline.{name}"
    for name in (
        *("cluster.actor_pool", "cluster.beside", "cluster.connect", "cluster.data_context"),
        *("cluster.head", "cluster.inspection", "cluster.instruments", "cluster.job_server"),
        *(
            "cluster.last_step",
            "cluster.mailbox",
            "cluster.raylet_lines",
            "export.write_in_tasks",
            "labelling.verify_in_tasks",
        ),
        *("cluster.nodes", "cluster.ray_errors", "cluster.reservation", "cluster.tasks"),
        *("labelling.chain", "labelling.room", "labelling.precision"),
        *("labelling.preflight", "labelling.prometheus", "labelling.publish_beside"),
        *("evaluation.evaluate", "training.driver", "training.fit", "training.ingest"),
        *("training.loop", "training.messages", "training.rate_steps"),
        *("training.metrics_log", "training.state_file", "training.worker"),
    )
)


def _package(module: str) -> str:
    return module.partition(".")[0]


def _module_name(path: Path) -> str:
    parts = path.relative_to(_ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


_FILES = {
    _module_name(path): path
    for package in _PACKAGES
    for path in sorted((_ROOT / package).rglob("*.py"))
}


def _lint(config: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "lint-imports"
    return subprocess.run(
        [program, "--no-cache", "--no-logo", config],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_imports_are_as_the_contracts_say() -> None:
    """All contracts on who imports whom are kept."""
    linted = _lint(_ROOT / "pyproject.toml")

    assert linted.returncode == 0, linted.stdout


def test_the_contracts_see_every_module() -> None:
    """The graph that they are held against has every module: no folder lacks its __init__.py."""
    assert grimp.build_graph(*_PACKAGES, cache_dir=None).modules == set(_FILES)


@pytest.mark.parametrize(
    ("allowed", "importer"),
    [
        ('"pipeline.training.ingest",', "pipeline.training.ingest -> ray"),
        ('"pipeline.training.state_file",', "pipeline.training.state_file -> torch"),
        ('"pipeline.inputs.data_set",', "pipeline.inputs.data_set -> fcn"),
    ],
)
def test_an_import_that_is_not_allowed_is_found(
    allowed: str, importer: str, tmp_path: Path
) -> None:
    """Without its entry in a contract, an import of Ray, torch or the networks breaks that."""
    contracts = (_ROOT / "pyproject.toml").read_text()
    assert allowed in contracts
    (tmp_path / "pyproject.toml").write_text(contracts.replace(allowed, ""))

    linted = _lint(tmp_path / "pyproject.toml")

    assert linted.returncode == 1
    assert importer in linted.stdout


def test_what_loads_ray_or_torch_is_there() -> None:
    """The modules that the rules on start-up leave out exist."""
    assert set(_FILES) >= _HEAVY | {"jobs.__main__"}


def test_no_module_is_a_drawer() -> None:
    """Every module is called after what it does."""
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert {name for name in _FILES if name.rpartition(".")[2] in drawers} == set()


def _loaded_after(code: str, folder: Path) -> tuple[int, list[str]]:
    """Run code in a fresh interpreter; give its exit code and which heavy packages it loaded."""
    heavy = ("torch", "torchvision", "safetensors", "ray")
    report = f"import sys; print('loaded:', *sorted({{*{heavy!r}}} & set(sys.modules)))"
    process = subprocess.run(
        [sys.executable, "-c", f"import atexit\natexit.register(lambda: exec({report!r}))\n{code}"],
        cwd=_ROOT,
        env={"HOME": str(folder), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "loaded:" in process.stdout, process.stderr
    return process.returncode, process.stdout.partition("loaded:")[2].split()


@pytest.mark.parametrize(
    "modules",
    [
        ["fcn", "fcn.weights.record"],
        [name for name in _FILES if _package(name) == "pipeline" and name not in _HEAVY],
        ["jobs.__main__"],
    ],
    ids=["fcn", "pipeline", "jobs"],
)
def test_importing_loads_neither_torch_nor_ray(modules: list[str], tmp_path: Path) -> None:
    """The whole pipeline, all commands and the checkpoint's record load no torch and no Ray."""
    assert _loaded_after(f"import {', '.join(modules)}", tmp_path) == (0, [])


def test_plan_runs_without_torch_and_ray(tmp_path: Path) -> None:
    """Planning a folder to the end loads no torch and no Ray."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"no picture, which a plan does not look at")
    arguments = ["plan", "--weights", "random:0"]
    arguments += ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    code = f"import sys, jobs.__main__ as m; sys.exit(m.main({arguments!r}))"
    assert _loaded_after(code, tmp_path) == (0, [])


def test_reading_an_output_works_without_torch_and_ray(tmp_path: Path) -> None:
    """Verifying, reporting, listing, selecting and exporting loads no torch and no Ray."""
    run = start_run(tmp_path, draw_images(tmp_path, 2))
    label_run(run)
    publish(run, str)
    more = (
        ["select", "--to", str(tmp_path / "to.parquet")],
        ["export", "--to", str(tmp_path / "to"), "--format", "coco"],
    )
    for command, *flags in (["verify"], ["report"], ["runs"], *more):
        arguments = [command, str(tmp_path / "out"), *flags]
        code = f"import sys, jobs.__main__ as m; sys.exit(m.main({arguments!r}))"
        assert _loaded_after(code, tmp_path) == (0, [])
