"""Masks that were named as input, told by their first PNGs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.__main__ import main
from pipeline.inputs.mask_looks import LOOKED_AT

_SAID = "PNGs look like masks: palette, or grey with few values"
_GREY = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
_LOOKS = {
    "palette": (Image.fromarray(_GREY).convert("RGB").quantize(256), True),
    "black and white": (Image.fromarray(_GREY).convert("1"), True),
    "31 values": (Image.fromarray(_GREY % 31), True),
    "32 values": (Image.fromarray(_GREY % 32), False),
    "photograph": (Image.fromarray(_GREY).convert("RGB"), False),
}


def _plan(folder: Path) -> int:
    words = ["--input", str(folder), "--output", str(folder.parent / "out")]
    return main(["plan", *words, "--weights", "random:0"])


@pytest.mark.parametrize("look", _LOOKS)
def test_masks_are_told_by_their_looks(
    look: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A palette or a few values of grey are doubted under any name, and planned all the same."""
    picture, is_mask = _LOOKS[look]
    (tmp_path / "in").mkdir()
    picture.save(tmp_path / "in" / "a.png")
    assert _plan(tmp_path / "in") == 0
    assert (f"the first 1 {_SAID}" in caplog.text) == is_mask


@pytest.mark.parametrize("place", [0, LOOKED_AT - 1, LOOKED_AT])
def test_one_other_picture_among_the_first_clears_them(
    place: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Eight are looked at and no more; a photograph, or a damaged file, among them is enough."""
    (tmp_path / "in").mkdir()
    for number in range(LOOKED_AT + 1):
        _LOOKS["palette"][0].save(tmp_path / "in" / f"{number}.PNG")
    (tmp_path / "in" / f"{place}.PNG").write_bytes(b"damaged")
    assert _plan(tmp_path / "in") == 0
    assert (f"the first {LOOKED_AT} {_SAID}" in caplog.text) == (place == LOOKED_AT)
