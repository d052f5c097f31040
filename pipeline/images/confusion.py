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
    axes.set_yticks(range(len(names)), names)
    figure.colorbar(image, label="share of the class's pixels", shrink=0.8)
    if len(names) <= _MAX_WITH_NUMBERS:
        for (row, column), share in np.ndenumerate(shares):
            colour = "white" if share > 0.5 else "black"
            text = "" if np.isnan(share) or share < 0.005 else f"{share:.2f}".lstrip("0")
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
