"""The picture of a confusion matrix."""

import io
from collections.abc import Sequence

import matplotlib.figure
import numpy as np
from numpy.typing import NDArray

# Classes whose shares are written into the picture.
_MAX_WITH_NUMBERS = 30
# In inches: hundreds of classes would take hundreds of megabytes.
_MAX_SIDE = 30.0


def confusion_picture(counts: NDArray[np.int64], names: Sequence[str], title: str) -> bytes:
    """Draw a confusion matrix: the share of each class's pixels that is predicted as each class.

    Beside each class stand its IU and its pixels in the ground truth.

    Args:
        counts: n_ij, of shape (classes, classes): ground truth in rows, prediction in columns.
        names: The classes' names, by index.
        title: Stands above it.

    Returns:
        A PNG file.
    """
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    side = min(max(5.0, 0.55 * len(names) + 2), _MAX_SIDE)
    figure = matplotlib.figure.Figure((side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    axes.set(title=title, xlabel="predicted", ylabel="truth")
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), _with_iu(counts, names))
    figure.colorbar(image, label="share of the class's pixels", shrink=0.8)
    if len(names) <= _MAX_WITH_NUMBERS:
        for (row, column), share in np.ndenumerate(shares):
            colour = "white" if share > 0.5 else "black"
            text = "" if np.isnan(share) or share < 0.005 else f"{share:.2f}".lstrip("0")
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _with_iu(counts: NDArray[np.int64], names: Sequence[str]) -> list[str]:
    """Return the rows' labels: name, IU and pixels; one that is not in the truth has no IU."""
    hits, truth, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    labels = []
    for name, hit, of_truth, union in zip(
        names, hits, truth, truth + predicted - hits, strict=True
    ):
        iu = f"IU {hit / union:.3f}" if of_truth else "no IU"
        labels.append(f"{name}\n{iu}, {_short(of_truth)} px")
    return labels


def _short(number: int) -> str:
    """Write a number in few letters: 950, 12.3k, 4.5M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
