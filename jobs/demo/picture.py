"""The README's picture: scenes of the demo, their masks, and the share of each class.

`python -m jobs.demo.picture` (`make demo-picture`) draws docs/images/demo.webp anew.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from numpy.typing import NDArray

import fcn
from fcn.weights.classes import ClassLabel
from jobs.demo.scenes import Conditions, draw_seen_scene
from jobs.demo.weights import FOLDER

_PATH = Path(__file__).parents[2] / "docs" / "images" / "demo.webp"
_HEIGHT, _WIDTH = 150, 240
# The seed of a scene, and how it is seen.
_SCENES = (
    (4, Conditions()),
    (8, Conditions(num_cars=2)),
    (3, Conditions(fog=0.75)),
    (17, Conditions(light=0.45)),
)
_INK = "#333333"


def draw_picture(path: Path) -> None:
    """Label some scenes with the demo's checkpoint, and draw each above its mask and its classes.

    Args:
        path: The path of the WebP.
    """
    network, record = fcn.load(str(FOLDER / "model.safetensors"))
    scenes = [draw_seen_scene(seed, _HEIGHT, _WIDTH, seen)[0] for seed, seen in _SCENES]
    found = fcn.Predictor(network, record, device="cpu").predict(scenes)
    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03)
    figure = Figure(figsize=(10, 4.2), dpi=100, layout=layout, facecolor="white")
    columns = figure.subplots(3, len(scenes), height_ratios=(10, 10, 1)).T
    colours = np.array([label.color for label in record.classes], np.uint8)
    for (above, below, bar), scene, prediction in zip(columns, scenes, found, strict=True):
        assert prediction is not None
        _show(above, scene, f"confidence {prediction.mean_confidence:.2f}")
        _show(below, colours[prediction.mask])
        ends = prediction.class_pixels.cumsum()
        bar.barh(0, -prediction.class_pixels, left=ends, color=colours / 255)
        bar.set(xlim=(0, ends[-1]))
        bar.set_axis_off()
    _name_classes(figure, record.classes)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, pil_kwargs={"quality": 82, "method": 6})


def _show(axes: Axes, pixels: NDArray[np.uint8], title: str | None = None) -> None:
    axes.imshow(pixels, interpolation="nearest")
    if title:
        axes.set_title(title, color=_INK, fontsize=10.5)
    axes.set_axis_off()


def _name_classes(figure: Figure, classes: tuple[ClassLabel, ...]) -> None:
    patches = [Patch(facecolor=tuple(np.divide(one.color, 255)), label=one.name) for one in classes]
    figure.legend(
        handles=patches,
        loc="outside lower center",
        ncols=len(patches),
        frameon=False,
        labelcolor=_INK,
        handlelength=1,
        handleheight=1,
    )


if __name__ == "__main__":
    draw_picture(_PATH)
    sys.stdout.write(f"{_PATH}\n")
