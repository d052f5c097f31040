"""The README's picture: a scene of the demo, its mask, and what share each class has.

`python -m jobs.demo.picture` (`make demo-picture`) draws docs/images/demo.png anew.
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

import fcn
from fcn.weights.classes import ClassLabel
from jobs.demo.scenes import draw_scene
from jobs.demo.weights import FOLDER

_PATH = Path(__file__).parents[2] / "docs" / "images" / "demo.png"
_SEED, _HEIGHT, _WIDTH = 4, 135, 240
_INK = "#333333"


def draw_picture(path: Path) -> None:
    """Label one scene with the demo's checkpoint, and draw scene, mask and class shares.

    Args:
        path: Of the PNG.
    """
    network, record = fcn.load(str(FOLDER / "model.safetensors"))
    scene, _ = draw_scene(_SEED, _HEIGHT, _WIDTH)
    [prediction] = fcn.Predictor(network, record, device="cpu").predict([scene])
    assert prediction is not None
    colours = np.array([one.color for one in record.classes], np.uint8)
    figure = Figure(figsize=(10, 2.15), dpi=120, layout="constrained", facecolor="white")
    left, middle, right = figure.subplots(1, 3, width_ratios=(16, 16, 13))
    _show(left, scene, "image")
    _show(middle, colours[prediction.mask], "mask")
    _show_shares(right, record.classes, prediction.class_pixels / prediction.mask.size)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def _show(axes: Axes, pixels: NDArray[np.uint8], title: str) -> None:
    axes.imshow(pixels, interpolation="nearest")
    axes.set_title(title, color=_INK, fontsize=11)
    axes.set_axis_off()


def _show_shares(axes: Axes, classes: tuple[ClassLabel, ...], shares: NDArray[np.float64]) -> None:
    names = [one.name for one in classes]
    bars = axes.barh(names, shares, color=[np.divide(one.color, 255) for one in classes])
    axes.bar_label(bars, [f"{share:.1%}" for share in shares], padding=4, color=_INK, fontsize=10)
    axes.invert_yaxis()
    axes.set_title("class statistics", color=_INK, fontsize=11)
    axes.set_xticks([])
    axes.set_xlim(0, shares.max() * 1.25)
    axes.tick_params(length=0, labelsize=10, labelcolor=_INK)
    axes.spines[:].set_visible(False)


if __name__ == "__main__":
    draw_picture(_PATH)
    sys.stdout.write(f"{_PATH}\n")
