"""Bad settings end before any work: the right exit code, and a message that helps."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fcn.models import build
from fcn.weights.classes import numbered_classes
from fcn.weights.files import save
from fcn.weights.record import Checkpoint
from tests.product import NETWORK, REPOSITORY, draw_photographs

_PROGRAM = """
import sys
from jobs.__main__ import main
code = main(sys.argv[1:])
assert "ray" not in sys.modules, "Ray was imported"
sys.exit(code)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with photographs, colliding ones, and a checkpoint that was tampered with."""
    folder = tmp_path_factory.mktemp("settings")
    draw_photographs(folder / "in", 3)
    draw_photographs(folder / "twins", 1)
    (folder / "twins" / "photo_000.png").write_bytes(b"the same name but for its ending")
    (folder / "empty").mkdir()
    (folder / "a_file").write_text("no folder")
    (folder / "config.yaml").write_text("input: in\nmax_eror_rate: 0.5\n")
    record = Checkpoint("fcn_all_skips", numbered_classes(3), width=2)
    record, data = save(record, build("fcn_all_skips", 3, width=2))
    (folder / "net.json").write_text(record.to_json())
    (folder / "net.safetensors").write_bytes(data)
    (folder / "other.json").write_text(record.to_json())
    (folder / "other.safetensors").write_bytes(data[:-1] + b"x")
    classes = [{"id": index, "name": f"c{index}", "color": [0, 0, index]} for index in range(3)]
    (folder / "classes.json").write_text(json.dumps({"classes": classes}))
    return folder


def run(place: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, "label", *flags],
        cwd=place, env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin"},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


_NET = ("--weights", "net.safetensors")


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (("--input", "gone", "--output", "out", *NETWORK), 3, ["input=", "gone", "does not exist"]),
        (("--input", "empty", "--output", "out", *NETWORK), 3, ["input=", "empty", "no images"]),
        (("--input", "twins", "--output", "out", *NETWORK), 3,
         ["photo_000.jpg", "photo_000.png", "mask_name=full"]),
        (("--input", "in", "--output", "a_file/out", *NETWORK), 2, ["output=", "a_file/out"]),
        (("--input", "in", "--output", "/proc/out", *NETWORK), 2, ["output=", "/proc/out"]),
        (("--input", "in", "--output", "http://x/out", *NETWORK), 2, ["output=", "s3://"]),
        (("--input", "in", "--output", "out", "--weights", "other.safetensors"), 2,
         ["weights=", "sha256", "other.safetensors", "copy both files again"]),
        (("--input", "in", "--output", "out", *_NET, "--weights-sha256", "0" * 64), 2,
         ["weights_sha256=", "0000"]),
        (("--input", "in", "--output", "out", "--weights", "gone.safetensors"), 2,
         ["weights", "gone.json", "does not exist"]),
        (("--input", "in", "--output", "out", *_NET, "--num-classes", "7"), 2,
         ["num_classes=7", "3 classes", "leave num_classes out"]),
        (("--input", "in", "--output", "out", "--weights", "random:0", "--num-classes", "4",
          "--classes", "classes.json"), 2, ["num_classes=4", "3 classes"]),
        (("--input", "in", "--output", "out", *_NET, "--width", "8"), 2, ["width", "random:SEED"]),
        (("--input", "in", "--output", "out", "--weights", "random:x"), 2, ["random:0"]),
        (("--input", "in", "--output", "out", "--weights", "random:0", "--network", "unet"), 2,
         ["network='unet'", "fcn_all_skips"]),
        (("--config", "config.yaml", "--output", "out", *NETWORK), 2,
         ["max_eror_rate", "no setting", "--help"]),
        (("--config", "gone.yaml"), 2, ["config=", "gone.yaml", "does not exist"]),
        (("--input", "in", "--output", "out", *NETWORK, "--max-error-rate", "3"), 2,
         ["max_error_rate", "3", "less than or equal to 1"]),
        (("--input", "in", "--output", "out", *NETWORK, "--run-id", "../up"), 2,
         ["run_id", "../up"]),
        (("--output", "out", *NETWORK), 2, ["input", "is missing", "FCN_"]),
    ],
)  # fmt: skip
def test_a_bad_setting_is_named(place: Path, flags: tuple[str, ...], code: int, words: list[str]):
    """The exit code is right, and the message names field, value and remedy, before Ray starts."""
    found = run(place, *flags)

    assert found.returncode == code, found.stderr
    assert "Traceback" not in found.stderr
    for word in words:
        assert word in found.stderr.splitlines()[-1]
    assert not (place / "out" / "runs").exists()
