"""The check for GPUs still runs: its quick sections, rehearsed on the CPU."""

import json
import subprocess
import sys
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
