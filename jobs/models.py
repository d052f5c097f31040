"""`models`: the networks that there are, and what they cost."""

from collections.abc import Iterator

from fcn.architectures import ARCHITECTURES, PADDING, PADDINGS
from fcn.cost import count
from fcn.weights.published import sources_of
from jobs.logs.output import say
from pipeline.errors import EXIT_OK
from pipeline.settings.shared import NoSettings

_NUM_CLASSES = 21
_SIZE = (500, 500)

_HEADINGS = ("network", "padding", "parameters", "G mult-adds", "field", "stride")
_NOTES = """
parameters   at 21 classes, with fixed upsampling where the network has a choice
G mult-adds  10^9 multiply-adds of its convolutions for one image of 500 x 500 pixels
field        receptive field of its coarsest layer, in pixels
stride       pixels per step of its finest scores, before the last upsampling

weights, for `fcn import-weights`:"""


def run(_: NoSettings) -> int:
    """Print a table of the networks.

    Returns:
        The exit code.
    """
    say("\n".join(_table([_HEADINGS, *_rows()])))
    say(_NOTES)
    for name in ARCHITECTURES:
        say(f"  {name:<20} {'; '.join(sources_of(name)) or 'none is published'}")
    return EXIT_OK


def _rows() -> Iterator[tuple[str, ...]]:
    for name, choices in ARCHITECTURES.items():
        for padding in PADDINGS if PADDING in choices else PADDINGS[:1]:
            cost = count(name, _NUM_CLASSES, _SIZE, padding=padding)
            yield (
                name,
                padding if PADDING in choices else "-",
                f"{cost.num_parameters:,}",
                f"{cost.multiply_adds / 1e9:.1f}",
                str(cost.receptive_field),
                str(cost.output_stride),
            )


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        # Names to the left, numbers to the right.
        yield "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(cells)
        )
