"""matplotlib's figures as SVG inside a page, whose colours and letters they take.

Nothing in them names another place: no font, no schema, no metadata.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Stand-ins that no class has, and what the page's style sheet calls what they stand for.
INK, MUTED, LINE, ACCENT, LAST = "#01fe7a", "#01fe7b", "#01fe7c", "#01fe7d", "#01fe7e"
_NAMES = {INK: "ink", MUTED: "muted", LINE: "line", ACCENT: "accent", LAST: "last"}

_WIDTH, _DPI = 5.3, 72
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 11,
    # Names of classes are no formulas.
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "lines.solid_capstyle": "round",
}


@contextmanager
def drawing(height: float = 3.0) -> Iterator[tuple[Figure, Axes]]:
    """Open a figure of one chart in the page's style.

    Args:
        height: In inches of 72 points; all charts have one width.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")
        yield figure, figure.subplots()


def as_svg(figure: Figure, name: str, title: str) -> str:
    """Write a figure as an `<svg>` that stands in HTML.

    Args:
        figure: Opened by `drawing`, and still in it.
        name: What its ids begin with; another for each figure of a page.
        title: What it shows, for those who do not see it; no markup.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        # The reader's own fonts draw the letters; that matplotlib's lacks one is nothing to it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _inline(buffer.getvalue(), name, title)


def _inline(text: str, name: str, title: str) -> str:
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    head, rest = text.split(">", 1)
    [box] = re.findall(r'viewBox="[^"]*"', head)
    rest = re.sub(r'\bid="', f'id="{name}-', rest)
    rest = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", rest)
    # The page's own letters, in the size that was laid out.
    rest = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", rest)
    for colour, meaning in _NAMES.items():
        rest = rest.replace(colour, f"var(--{meaning})")
    return f'<svg {box} role="img" aria-label="{title}">{rest.strip()}'
