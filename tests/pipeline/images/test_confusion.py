"""The picture of a confusion matrix says how good each class is, and on how many pixels."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from pipeline.images.confusion import confusion_picture


def test_each_class_has_its_iu_and_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside its name; a class that the truth has not has no IU, and the picture is a PNG."""
    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *given: object, **named: object) -> None:
        drawn.append(figure)
        save(figure, *given, **named)

    monkeypatch.setattr(Figure, "savefig", keep)
    counts = np.array([[3_000_000, 1_000_000, 0], [0, 1_234, 0], [0, 0, 0]])

    data = confusion_picture(counts, ["sky", "pole", "car"], "a title")

    labels = [one.get_text() for one in drawn[0].axes[0].get_yticklabels()]
    assert labels == ["sky\nIU 0.750, 4M px", "pole\nIU 0.001, 1.23k px", "car\nno IU, 0 px"]
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "PNG"
