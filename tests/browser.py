"""Headless Chromium, where it is installed: how wide a page is, and a picture of it."""

import re
import shutil
import subprocess
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, _NAMES)), None)
_FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
    *("--disable-background-networking", "--allow-file-access-from-files"),
)
# A frame of the width that is asked for; a window would not get narrower than 500 pixels.
_FRAME = """<body><iframe width={width} height=800 style="border: 0" src="{address}"
 onload="const page = this.contentDocument.documentElement;
 document.title = [page.scrollWidth, page.clientWidth].join(' of ')"></iframe>"""


def widths(page: Path, width: int, folder: Path) -> tuple[int, int]:
    """Return how wide a page wants to be in a frame of a width, and how wide it may be.

    Args:
        page: The file.
        width: Of the frame, in pixels.
        folder: For what Chromium keeps.
    """
    frame = folder / f"frame_{width}.html"
    frame.write_text(_FRAME.format(width=width, address=page.as_uri()))
    found = re.search(r"<title>(\d+) of (\d+)</title>", _run(folder, "--dump-dom", frame.as_uri()))
    assert found is not None
    return int(found[1]), int(found[2])


def screenshot(page: Path, size: tuple[int, int], to: Path, folder: Path, *flags: str) -> None:
    """Draw a page as PNG.

    Args:
        page: The file.
        size: (height, width) of the window.
        to: The PNG.
        folder: For what Chromium keeps.
        flags: Further ones of Chromium.
    """
    height, width = size
    _run(folder, *flags, f"--screenshot={to}", f"--window-size={width},{height}", page.as_uri())


def _run(folder: Path, *arguments: str) -> str:
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, *_FLAGS, f"--user-data-dir={folder}/chromium", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout
