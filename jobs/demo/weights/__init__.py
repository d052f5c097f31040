"""The demo's checkpoint: `fcn_all_skips` of width 8, trained by `train` on drawn scenes.

`python -m jobs.demo.weights` (`make demo-weights`) makes the files of this folder anew: it draws
the scenes from seeds that the demo does not use, trains, and keeps model and log.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
NAMES = ("model.safetensors", "model.json")
