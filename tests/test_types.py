"""Types reach the user: mypy sees them in the docs' Python, from outside of the checkout."""

import re
import subprocess
import sys
from pathlib import Path

from tests.product import REPOSITORY

_PAGES = ("README.md", "docs/networks.md")
# What the reader has at hand.
_GIVEN = """import numpy as np
from numpy.typing import NDArray

image: NDArray[np.uint8]
ground_truth: NDArray[np.uint8]
"""
_ASKED = """
reveal_type(network)
reveal_type(record.classes)
reveal_type(predictor.predict([image]))
reveal_type(fcn.build("fcn_resnet50", num_classes=3))
reveal_type(ConfusionMatrix.of(ground_truth, prediction.mask, 3).metrics().mean_iu)
fcn.Predictor(network, record, device=7)
"""


def _mypy(folder: Path, code: str) -> str:
    (folder / "program.py").write_text(code)
    # With the settings of `make check`, whose cache of torch and others is a minute's work.
    settings = ("--config-file", REPOSITORY / "pyproject.toml")
    cache = ("--cache-dir", REPOSITORY / ".mypy_cache")
    command = (sys.executable, "-m", "mypy", "--strict", *settings, *cache, "program.py")
    found = subprocess.run(
        command, cwd=folder, env={"PATH": ""}, capture_output=True, text=True, check=False
    )
    return found.stdout + found.stderr


def test_the_python_of_the_docs_has_its_types(tmp_path: Path):
    """The checker accepts it, knows the type of every result, and refuses a wrong argument."""
    text = "".join((REPOSITORY / page).read_text() for page in _PAGES)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)

    said = _mypy(tmp_path, "\n".join([_GIVEN, *blocks, _ASKED]))

    revealed = re.findall(r'Revealed type is "(.*)"', said)
    errors = re.findall(r"error: (.*)", said)
    assert revealed == [
        "fcn.models.network.Network",
        "tuple[fcn.weights.classes.ClassLabel, ...]",
        "list[fcn.inference.labeller.Prediction | None]",
        "fcn.models.network.Network",
        "float",
    ], said
    assert len(errors) == 1, said
    assert 'Argument "device" to "Predictor" has incompatible type "int"' in errors[0]
