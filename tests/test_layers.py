"""Which module may import which: section 3 of the design, held by the source text."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from pipeline.labelling.publish import publish
from tests.disk_runs import draw_images, label_run, start_run

_ROOT = Path(__file__).parent.parent
_PACKAGES = ("fcn", "pipeline", "jobs")
_STEPS = frozenset(
    f"pipeline.labelling.{step}"
    for step in ("plan", "fetch", "segment", "write", "publish", "report", "verify")
)
# From the bottom up: a room imports from those below it, and not from those beside it.
_ROOMS = (
    {"fcn"},
    {"pipeline.redact", "pipeline.versions", "pipeline.memory", "pipeline.log_context"},
    {"pipeline.errors"},
    {"pipeline.images", "pipeline.store"},
    {"pipeline.inputs", "pipeline.settings"},
    {"pipeline.cluster"},
    {"pipeline.labelling", "pipeline.training"},
    {"pipeline.evaluation"},
    {"jobs"},
)
# What loads Ray or torch is itself loaded once they are needed.
_HEAVY = frozenset(
    f"pipeline.{name}"
    for name in (
        *("cluster.actor_pool", "cluster.data_context", "cluster.inspection"),
        *("cluster.instruments", "cluster.job_server", "cluster.mailbox", "cluster.nodes"),
        *("cluster.ray_errors", "cluster.reservation", "cluster.tasks"),
        *("labelling.pool", "labelling.preflight", "labelling.prometheus"),
        *("training.fit", "training.ingest", "training.loop", "training.messages"),
        *("training.metrics_log", "training.state_file", "training.worker"),
    )
)


def _package(module: str) -> str:
    return module.partition(".")[0]


def _room(module: str) -> str:
    return ".".join(module.split(".")[: 2 if module.startswith("pipeline.") else 1])


def _module_name(path: Path) -> str:
    parts = path.relative_to(_ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


_FILES = {
    _module_name(path): path
    for package in _PACKAGES
    for path in sorted((_ROOT / package).rglob("*.py"))
}


class _Imports(ast.NodeVisitor):
    """Collects imported names at any depth, without those for types only."""

    def __init__(self) -> None:
        self.found: set[str] = set()
        self.relative = False

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" not in ast.unparse(node.test):
            self.generic_visit(node)
            return
        for other in node.orelse:
            self.visit(other)

    def visit_Import(self, node: ast.Import) -> None:
        self.found.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.relative |= node.level > 0
        for alias in node.names:
            submodule = f"{node.module}.{alias.name}"
            self.found.add(submodule if submodule in _FILES else str(node.module))


def _walk(source: str) -> _Imports:
    imports = _Imports()
    imports.visit(ast.parse(source))
    return imports


_GRAPH = {name: _walk(path.read_text()).found for name, path in _FILES.items()}


def _edges() -> Iterator[tuple[str, str]]:
    return ((importer, name) for importer, names in _GRAPH.items() for name in names)


def _importers(*packages: str) -> set[str]:
    return {importer for importer, name in _edges() if _package(name) in packages}


def test_the_walk_sees_every_form_of_import() -> None:
    """Imports inside functions and branches count, those for type checkers do not."""
    source = """
import a.b, c as d
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import hidden
else:
    import shown
def f():
    from e import g
    import pipeline.labelling.plan
    from pipeline.labelling import plan as p
    from pipeline.store import storage
"""
    assert _walk(source).found == {
        *("a.b", "c", "typing", "shown", "e", "pipeline.labelling.plan", "pipeline.store.storage"),
    }


def test_the_modules_are_found() -> None:
    """The rules below are held against every module: all steps and rooms are among them."""
    assert set(_FILES) >= _STEPS | _HEAVY | {"pipeline.labelling.flow", "jobs.__main__"}
    rooms = {_room(name) for name in _FILES}
    assert rooms - {"pipeline"} == {room for rooms in _ROOMS for room in rooms}


def test_steps_never_import_each_other() -> None:
    """No step of the flow imports another step."""
    assert [edge for edge in _edges() if set(edge) <= _STEPS] == []


def test_rooms_import_from_those_below_them() -> None:
    """Imports go down, or stay in the room."""
    height = {room: level for level, rooms in enumerate(_ROOMS) for room in rooms}
    upward = {
        (importer, name)
        for importer, name in _edges()
        if name in _FILES
        and (above := _room(importer)) != (below := _room(name))
        and height[above] <= height[below]
    }
    assert upward == set()


def test_few_modules_import_ray() -> None:
    """Ray appears in pipeline/cluster/, in the flow, and in trainings."""
    elsewhere = {
        module for module in _importers("ray") if not module.startswith("pipeline.cluster.")
    }
    assert elsewhere == {
        "pipeline.labelling.flow",
        *(f"pipeline.training.{name}" for name in ("fit", "ingest", "worker")),
    }


def test_only_fcn_and_the_training_workers_import_torch() -> None:
    """The flow and all commands run where no torch is installed; a training's workers do not."""
    importers = _importers("torch", "torchvision", "safetensors")
    assert {module for module in importers if _package(module) != "fcn"} == {
        f"pipeline.training.{name}" for name in ("loop", "metrics_log", "state_file", "worker")
    }


def test_few_modules_import_the_network() -> None:
    """Of labelling only segment and what it loads know the networks, of what is below two."""
    importers = {module for module in _importers("fcn") if _package(module) == "pipeline"}
    assert {
        name
        for name in importers
        if _room(name) not in ("pipeline.training", "pipeline.evaluation")
    } == {
        *("pipeline.labelling.network", "pipeline.labelling.segment"),
        *("pipeline.inputs.data_set", "pipeline.settings.train"),
    }


def test_the_network_stands_alone() -> None:
    """The networks know nothing of the flow, the commands, Ray or Arrow."""
    foreign = ("pipeline", "jobs", "ray", "pyarrow", "s3fs")
    importers = {module for module in _importers(*foreign) if _package(module) == "fcn"}
    assert importers == set()


def test_only_checkpoints_are_read_by_the_network_package() -> None:
    """Of the package of the networks only one module opens files and objects."""
    importers = {module for module in _importers("fsspec") if _package(module) == "fcn"}
    assert importers == {"fcn.weights.loading"}


def test_the_pipeline_does_not_know_the_commands() -> None:
    """Imports run from jobs to pipeline and never back."""
    assert {_package(module) for module in _importers("jobs")} <= {"jobs"}


def test_only_commands_start_the_flow() -> None:
    """Nobody but the commands imports the flow."""
    importers = {importer for importer, name in _edges() if name == "pipeline.labelling.flow"}
    assert {_package(module) for module in importers} == {"jobs"}


def test_nothing_is_imported_from_infra_or_tests() -> None:
    """The product does not depend on its deployment or its tests."""
    assert _importers("infra", "tests") == set()


def test_imports_have_no_cycles() -> None:
    """The modules can be put in an order in which each imports only earlier ones."""
    order = list(TopologicalSorter(_GRAPH).static_order())
    assert set(order) >= set(_FILES)


def test_no_import_is_relative() -> None:
    """Every import names the module that it means."""
    relative = {name for name, path in _FILES.items() if _walk(path.read_text()).relative}
    assert relative == set()


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


def test_verify_and_report_run_without_torch_and_ray(tmp_path: Path) -> None:
    """Verifying and reporting a finished run loads no torch and no Ray."""
    run = start_run(tmp_path, draw_images(tmp_path, 2))
    label_run(run)
    publish(run, str)
    for command in ("verify", "report"):
        arguments = [command, str(tmp_path / "out")]
        code = f"import sys, jobs.__main__ as m; sys.exit(m.main({arguments!r}))"
        assert _loaded_after(code, tmp_path) == (0, [])
