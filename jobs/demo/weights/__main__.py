"""Train the demo's checkpoint; see the package's docstring."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from jobs.demo.scenes import write_labelled_scenes
from jobs.demo.weights import FOLDER, NAMES

# The demo draws scenes 0 to 55.
_FIRST_TRAIN, _NUM_TRAIN = 100_000, 600
_FIRST_VAL, _NUM_VAL = 200_000, 60
_FLAGS = (
    *("--run-name", "demo", "--network", "fcn_all_skips", "--width", "8", "--recipe", "modern"),
    *("--crop", "[112,144]", "--augment-scales", "[0.8,1.25]", "--epochs", "20"),
    *("--evaluation-interval-epochs", "5", "--seed", "0"),
)


def main() -> int:
    """Draw, train, and keep what came out.

    Returns:
        The exit code of the training.
    """
    with tempfile.TemporaryDirectory(prefix="fcn-demo-weights-") as name:
        folder = Path(name)
        write_labelled_scenes(folder / "data/train", _FIRST_TRAIN, _NUM_TRAIN)
        write_labelled_scenes(folder / "data/val", _FIRST_VAL, _NUM_VAL)
        shutil.move(folder / "data/val/classes.json", folder / "data/classes.json")
        (folder / "data/train/classes.json").unlink()
        places = ["--data", f"{folder}/data", "--output", f"{folder}/runs"]
        command = [sys.executable, "-m", "jobs", "train", *places, *_FLAGS]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
        sys.stderr.write(done.stderr)
        if done.returncode:
            return done.returncode
        for one in NAMES:
            shutil.copyfile(folder / "runs/demo" / one, FOLDER / one)
        record = json.loads((FOLDER / "model.json").read_text())
        # Where the scenes were drawn says nothing to anybody else.
        for field, value in {"data": "drawn scenes", "run": "demo"}.items():
            record["provenance"][field] = value
        (FOLDER / "model.json").write_text(json.dumps(record, indent=1))
        text = f"$ fcn train {' '.join(_FLAGS)}\n{done.stderr}{done.stdout}"
        (FOLDER / "train.log").write_text(text.replace(name, "/tmp/scenes"))  # noqa: S108 - for readers
    return 0


if __name__ == "__main__":
    sys.exit(main())
