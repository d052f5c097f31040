"""The check for GPUs still runs: its quick sections, rehearsed on the CPU."""

import json
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

_CHECK = Path(__file__).parent / "check.py"
_QUICK = ("env", "hazards", "labelling", "codecs")


def test_the_quick_sections_run_and_find_nothing(tmp_path: Path) -> None:
    """Every quick section ends, with entries, without failures and without unequal results."""
    command = [sys.executable, _CHECK, "--device", "cpu", "--tiny", "--limit-factor", "3"]
    command += ["--only", ",".join(_QUICK), "--out", tmp_path]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=220)
    assert ran.returncode == 0, ran.stderr
    sections = json.loads((tmp_path / "gpu_check.json").read_text())["sections"]
    assert {name: section["state"] for name, section in sections.items()} == dict.fromkeys(
        _QUICK, "done"
    )
    entries = [entry for section in sections.values() for entry in section["entries"]]
    notes = [note for section in sections.values() for note in section["notes"]]
    assert [note for note in notes if "FAILED" in note] == []
    assert {entry["unequal"] for entry in entries if "unequal" in entry} == {0}
    assert {entry["masks_equal"] for entry in entries if "masks_equal" in entry} == {True}


_WITH_PYTORCH = {"torch", "cuda-bindings", "cuda-pathfinder", "setuptools", "fcn-pipeline"}
_PRINT_MODULES = """
import json, sys
import fcn.inference.predictor, fcn.training.trainer, fcn.weights.files
import pipeline.images.decode, pipeline.images.masks, pipeline.labelling.segment
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_the_packages_that_the_check_needs_are_named() -> None:
    """What its sections import is in packages.txt, or is part of what PyTorch's images have."""
    found = subprocess.run([sys.executable, "-c", _PRINT_MODULES], capture_output=True, check=True)
    there = packages_distributions()
    names = {name for one in json.loads(found.stdout) for name in there.get(one, ())}
    loaded = {name.lower().replace("_", "-") for name in names}
    lines = (_CHECK.parent / "packages.txt").read_text().splitlines()
    assert loaded - set(lines) - _WITH_PYTORCH == set()
