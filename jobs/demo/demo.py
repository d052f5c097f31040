"""`demo`: the whole job on drawn scenes, on this machine, in a minute."""

import shutil
from pathlib import Path

from jobs import evaluate, label, verify
from jobs.demo.scenes import write_demo_images, write_demo_truths
from jobs.demo.weights import FOLDER, NAMES
from jobs.logs.output import say
from jobs.settings.demo import DemoSettings
from jobs.settings.parser import read_settings
from pipeline.settings.evaluate import EvaluateSettings
from pipeline.settings.label import LabelSettings
from pipeline.settings.verify import VerifySettings

_NUM_SCENES = 56


def run(settings: DemoSettings) -> int:
    """Draw scenes, label and verify them, score the masks, and say where everything is.

    Args:
        settings: Where to.

    Returns:
        The exit code of the labelling, or of what comes after if that fails.
    """
    folder = Path(settings.folder).absolute()
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
    code = label.run(read_settings(LabelSettings, "label", arguments, {}))
    code = verify.run(read_settings(VerifySettings, "verify", [f"{folder}/output"], {})) or code
    arguments = ["--data", f"{manifest}", *places]
    say("Running: fcn evaluate " + " ".join(arguments))
    code = evaluate.run(read_settings(EvaluateSettings, "evaluate", arguments, {})) or code
    _say_what_to_open(folder)
    return code


def _say_what_to_open(folder: Path) -> None:
    """Name the newest page, and what leads on from there."""
    pages = sorted((folder / "output" / "runs").glob("*/report.html"), key=_written_at)
    if not pages:
        return
    output, chosen = folder / "output", folder / "look.parquet"
    say(
        f"\nOpen {pages[-1]}: what the network is unsure of comes first.\n"
        f"Choose what people should see: fcn select {output} --least-confident 20 --to {chosen}\n"
        f"Bring it into CVAT: fcn export {output} --format voc --selection {chosen} "
        f"--to {folder / 'export'}"
    )


def _written_at(path: Path) -> float:
    return path.stat().st_mtime
