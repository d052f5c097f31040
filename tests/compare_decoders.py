"""Decode every file of a folder by the product and by OpenCV, and show where they differ.

By hand, with files that are not ours (docs/formats.md):

    python -m pip install opencv-python-headless
    python -m tests.compare_decoders FOLDER

A difference is for a person to judge: OpenCV knows no orientation of AVIF, composes animations,
and has its own formulas for L*a*b* and premultiplied colours.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ImageError
from pipeline.images.decode import decode_image

_TOLERANCE = 3  # grey values: two decoders of JPEG, and two ways of mixing with white
_MAX_PIXELS = 50_000_000


def _second(data: bytes) -> NDArray[np.float64] | None:
    """Decode by OpenCV, over white; None if it can't."""
    import cv2  # noqa: PLC0415 - no dependency of the project

    try:
        found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if found is None:
        return None
    samples = (found >> 8 if found.dtype == np.uint16 else found).astype(float)
    samples = samples[..., None] if samples.ndim == 2 else samples
    number = samples.shape[2]
    colours = samples[..., :1].repeat(3, 2) if number < 3 else samples[..., 2::-1]
    if number in (1, 3):
        return colours
    alpha = samples[..., -1:] / 255
    return colours * alpha + 255 * (1 - alpha)


def _outcome(data: bytes) -> tuple[str, str]:
    """Return what became of a file, and what is to be said of it."""
    try:
        ours = decode_image(data, _MAX_PIXELS)
    except ImageError as error:
        return str(error.code), error.message
    theirs = _second(data)
    if theirs is None:
        return "ok, by us alone", ""
    if theirs.shape != ours.shape:
        return "ok, differs", f"{ours.shape} here, {theirs.shape} there"
    most = np.abs(theirs - ours).max()
    return ("ok, equal", "") if most <= _TOLERANCE else ("ok, differs", f"by up to {most:.0f}")


def main() -> int:
    """Compare a folder; 1 if anything but an ImageError was raised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    outcomes: Counter[str] = Counter()
    raised = 0
    for path in sorted(parser.parse_args().folder.rglob("*")):
        if not path.is_file():
            continue
        start = time.process_time()
        try:
            outcome, words = _outcome(path.read_bytes())
        except Exception as error:  # noqa: BLE001 - that is what is looked for
            outcome, words, raised = "RAISED", repr(error), 1
        outcomes[outcome] += 1
        if words and outcome != "unsupported_format":
            print(f"{path.name}: {outcome}: {words} ({time.process_time() - start:.2f} s)")
    print(dict(outcomes))
    return raised


if __name__ == "__main__":
    sys.exit(main())
