"""Compare the row of an image with its mask."""

import hashlib
from collections.abc import Callable
from typing import Any

from pipeline.errors import ErrorCode
from pipeline.images.masks import decode_mask
from pipeline.labelling.class_statistics import count_classes
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import OK
from pipeline.store.extent import Extent
from pipeline.store.storage import sha256_hex

_Found = list[tuple[str, str]]


def first_masks_folder(run: Run) -> str:
    """Where the run put its masks, which is what its tables say for ever."""
    return Run(run.storage, run.record.output, run.record).masks_folder


def chosen(run: Run, image_id: str, share: float) -> bool:
    """Say whether an image's mask is of a sample: the same ones, whenever a run is verified.

    Args:
        run: Another run has another sample.
        image_id: Of the image.
        share: Of the images, 0 to 1.
    """
    place = hashlib.sha256(f"{run.run_id}/{image_id}".encode()).digest()[:8]
    return int.from_bytes(place) < share * (1 << 64)


def place_of_mask(run: Run, row: dict[str, Any]) -> Extent:
    """Say where a mask lies now, be the output moved or a copy of what the tables point at.

    Args:
        run: Where it is.
        row: The row of an image that has a mask.
    """
    uri = row["mask_uri"].replace(first_masks_folder(run), run.masks_folder, 1)
    return Extent.of_mask(row | {"mask_uri": uri})


def check_row(
    run: Run, row: dict[str, Any], find: Callable[[Extent], bytes | None] | None
) -> _Found:
    """Check what the commit record says of one image; runs in a thread.

    Args:
        run: The run of the record.
        row: The row of the image.
        find: Reads its mask; None leaves that aside.

    Returns:
        What is broken: kinds, and what they were found at.
    """
    if row["status"] != OK:
        return _check_error(row)
    counts = {entry["class_id"]: entry["pixel_count"] for entry in row["classes"]}
    found = _check_mask(row, counts, place_of_mask(run, row), find) if find else []
    if any(kind in ("mask is missing", "mask is unreadable") for kind, _ in found):
        return found
    return found + _differing(
        ("class counts do not sum to the pixels", sum(counts.values()), _pixels(row)),
        ("row is of another run", row["run_id"], run.run_id),
        ("row is of another network", row["fingerprint"], run.record.network.fingerprint),
    )


def _pixels(row: dict[str, Any]) -> int:
    return int(row["height"]) * int(row["width"])


def _check_mask(
    row: dict[str, Any],
    counts: dict[int, int],
    place: Extent,
    find: Callable[[Extent], bytes | None],
) -> _Found:
    data = find(place)
    if data is None:
        return [("mask is missing", str(place))]
    try:
        mask = decode_mask(data)
    except ValueError as error:
        return [("mask is unreadable", str(error))]
    return _differing(
        ("mask has another sha256", sha256_hex(data), row["mask_sha256"]),
        ("mask has another size than its image", mask.shape, (row["height"], row["width"])),
        ("class counts differ from the mask", count_classes(mask), counts),
    )


def _differing(*comparisons: tuple[str, object, object]) -> _Found:
    return [
        (kind, f"{found}, committed {committed}")
        for kind, found, committed in comparisons
        if found != committed
    ]


def _check_error(row: dict[str, Any]) -> _Found:
    if row["error_code"] not in set(ErrorCode) or not row["error_message"]:
        return [("failed image without a known reason", str(row["error_code"]))]
    if row["mask_uri"] is not None or row["classes"]:
        return [("failed image with a mask or statistics", str(row["mask_uri"]))]
    return []
