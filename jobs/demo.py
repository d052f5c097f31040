"""`demo`: the whole job on drawn scenes, on this machine, in a minute."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs import label, verify
from jobs.output import say
from jobs.scenes import CLASSES, write_demo_images

_NUM_SCENES = 56


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:  # noqa: ARG001 - as every command
    """Draw scenes, label and verify them, and say where everything is.

    Args:
        argv: Flags.
        environ: Not used: the demo is the same everywhere.

    Returns:
        The exit code of the labelling, or of the verification if that fails.
    """
    parser = argparse.ArgumentParser("fcn demo", description=__doc__)
    parser.add_argument("--folder", default="demo", help="where to draw and label (default: demo)")
    folder = Path(parser.parse_args(list(argv)).folder).absolute()
    number = write_demo_images(folder / "images", _NUM_SCENES)
    say(f"Drew {number} image files in {folder / 'images'}; five are broken on purpose.")
    classes = folder / "classes.json"
    entries = [
        {"id": index, "name": name, "color": colour} for index, (name, colour) in enumerate(CLASSES)
    ]
    classes.write_text(json.dumps({"classes": entries}))
    flags = {
        "--input": folder / "images",
        "--output": folder / "output",
        "--weights": "random:0",
        "--classes": classes,
        "--max-error-rate": 0.1,
        "--max-shard-images": 16,
    }
    arguments = [text for flag, value in flags.items() for text in (flag, str(value))]
    say("Running: fcn label " + " ".join(arguments))
    # On this machine and with these settings, whatever the environment says.
    code = label.run(arguments, {})
    return verify.run([str(folder / "output")], {}) or code
