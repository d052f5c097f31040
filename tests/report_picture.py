"""The picture of a report in README: the demo's page in Chromium, from its top.

`make report-picture` runs the demo and draws docs/images/report.webp anew.
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser import screenshot

_PATH = Path(__file__).parents[1] / "docs" / "images" / "report.webp"
# (height, width) of the window, and the share of it in the picture.
_WINDOW, _SHOWN = (1460, 1250), 0.752


def draw_picture(page: Path, path: Path) -> None:
    """Draw the top of a page.

    Args:
        page: A report.html.
        path: The path of the WebP.
    """
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "page.png"
        screenshot(page.absolute(), _WINDOW, drawn, Path(folder))
        with Image.open(drawn) as picture:
            height, width = (round(_SHOWN * side) for side in _WINDOW)
            small = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
            small.save(path, quality=82, method=6)


if __name__ == "__main__":
    draw_picture(max(Path("demo/output/runs").glob("*/report.html")), _PATH)
    sys.stdout.write(f"{_PATH}\n")
