"""Mask names: what the mask of an image is called."""

import os

MASK_ENDING = ".png"


def mask_key(key: str, mask_name: str) -> str:
    """Name the mask of an image, below the run's folder of masks.

    Args:
        key: The image's name under the input. Parts that a disk would read as a way out of the
            folder (`..`, `.`) or could not hold (NUL) are percent-encoded.
        mask_name: `replace` replaces the ending, `full` keeps it.
    """
    stem = key if mask_name == "full" else os.path.splitext(key)[0]
    parts = [_safe_part(part) for part in f"{stem}{MASK_ENDING}".split("/")]
    return "/".join(parts)


def _safe_part(part: str) -> str:
    if part in ("", ".", ".."):
        return "%2E" * len(part) or "%"
    return part.replace("\0", "%00")
