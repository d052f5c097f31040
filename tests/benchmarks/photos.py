"""The CamVid photographs, as many of them as a benchmark asks for."""

import argparse
import os
import shutil
from pathlib import Path


def add_images_flag(parser: argparse.ArgumentParser) -> None:
    """Let the command line say where the photographs are."""
    parser.add_argument(
        "--images",
        type=Path,
        default=Path("../shared/camvid"),
        help="CamVid as train/images/*.jpg and val/images/*.jpg (default: ../shared/camvid)",
    )


def find_photos(images: Path) -> list[Path]:
    """List the photographs of both halves, in order of their paths.

    Raises:
        SystemExit: There are none.
    """
    found = sorted(images.glob("*/images/*.jpg"))
    if not found:
        raise SystemExit(f"--images={images}: no */images/*.jpg there")
    return found


def lay_out(images: Path, folder: Path, number: int) -> Path:
    """Fill a folder with photographs; beyond what there are, they repeat under other names.

    Args:
        images: As `add_images_flag` explains.
        folder: New; the first of each photograph is a copy, the others are hard links to it.
        number: Files to make.

    Returns:
        The folder.
    """
    photos = find_photos(images)
    for index in range(number):
        round_, photo = divmod(index, len(photos))
        path = folder / f"{round_:04d}" / photos[photo].name
        path.parent.mkdir(parents=True, exist_ok=True)
        if round_:
            os.link(folder / "0000" / photos[photo].name, path)
        else:
            shutil.copy(photos[photo], path)
    return folder
