"""`demo`: the whole job on drawn scenes, on this machine, in a minute."""

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs import evaluate, label, verify
from jobs.demo.scenes import write_demo_images, write_demo_truths
from jobs.demo.weights import FOLDER, NAMES
from jobs.logs.output import say

_NUM_SCENES = 56


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:  # noqa: ARG001 - as every command
    """Draw scenes, label and verify them, score the masks, and say where everything is.

    Args:
        argv: Flags.
        environ: Not used: the demo is the same everywhere.

    Returns:
        The exit code of the labelling, or of what comes after if that fails.
    """
    parser = argparse.ArgumentParser("fcn demo", description=__doc__)
    parser.add_argument("--folder", default="demo", help="where to draw and label (default: demo)")
    folder = Path(parser.parse_args(list(argv)).folder).absolute()
    number = write_demo_images(folder / "images", _NUM_SCENES)
    say(f"Drew {number} image files in {folder / 'images'}; five are broken on purpose.")
    manifest = write_demo_truths(folder, folder / "images", _NUM_SCENES)
    (folder / "weights").mkdir(exist_ok=True)
    for name in NAMES:
        shutil.copyfile(FOLDER / name, folder / "weights" / name)
    places = ["--output", f"{folder}/output", "--weights", f"{folder}/weights/model.safetensors"]
    shards = ["--max-shard-images", "16", "--max-error-rate", "0.1"]
    arguments = ["--input", f"{folder}/images", *places, *shards]
    say("Running: fcn label " + " ".join(arguments))
    # On this machine and with these settings, whatever the environment says.
    code = label.run(arguments, {})
    code = verify.run([f"{folder}/output"], {}) or code
    arguments = ["--data", f"{manifest}", *places]
    say("Running: fcn evaluate " + " ".join(arguments))
    return evaluate.run(arguments, {}) or code
