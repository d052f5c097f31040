"""Exports as Datumaro, Label Studio's SDK and Hugging Face's `datasets` read them."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from jobs.__main__ import main
from pipeline.store.storage import Storage
from tests.pipeline.export.labelled_output import NAMES, on_disk, truth, two_nights
from tests.product import REPOSITORY

_PYTHON = REPOSITORY / ".venv-readers/bin/python"


@pytest.mark.skipif(not _PYTHON.exists(), reason="`make readers` installs what reads exports")
def test_each_format_is_read_by_its_own_library(tmp_path: Path) -> None:
    """Every pixel of every mask is what was labelled; tasks and predictions are valid."""
    two_nights(on_disk(tmp_path), Storage())
    masks = truth(on_disk(tmp_path), Storage())
    np.savez(tmp_path / "expected.npz", **{NAMES[key]: mask for key, mask in masks.items()})
    (tmp_path / "names.json").write_text(json.dumps(NAMES))
    for form in ("voc", "hf", "label-studio"):
        flags = ["--image-url-prefix", "https://images/"] if form == "label-studio" else []
        command = ["export", str(tmp_path / "out"), "--format", form, "--to", str(tmp_path / form)]
        assert main([*command, *flags]) == 0
    read = subprocess.run(
        [_PYTHON, "tests/readers/read.py", str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={"HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)},
    )
    assert read.returncode == 0, read.stdout + read.stderr
    assert read.stdout.count(f"{len(NAMES)} of {len(NAMES)} as expected") == 3
