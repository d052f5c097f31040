"""The charts of a page. What stands beside them, title and legend, is the page's."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.labelling.confidences import NUM_BINS
from pipeline.labelling.page.comparison import Distance, Night
from pipeline.labelling.page.svg import ACCENT, INK, LAST, LINE, MUTED, as_svg, drawing
from pipeline.labelling.records import ClassTotal
from pipeline.labelling.timeline import Timeline

# Of more classes those of the most pixels are drawn; the page's table has all.
MAX_CLASSES = 24
_ROW_IN, _HEAD_IN = 0.27, 0.62
# Bars of a histogram: fewer where there are few images, which say little about each.
_BARS_TOGETHER = (1, 2, 5, 10)
_MIN_BARS, _MAX_BARS = 6, 40
# Of confidences over several runs: less is no change worth the eye.
_LEAST_SPAN = 0.04
# Shards that a step of the timeline has on average, or it shows their sizes and not the speed.
_SHARDS_PER_STEP = 3
_PER_CENT = FuncFormatter(lambda value, _: f"{100 * value:.4g}%")
# So that no label of the first and the last run is cut off.
_SIDES: Sequence[Literal["left", "right"]] = ("left", "right")
_MARK: dict[str, Any] = {"linestyle": "none", "marker": "|", "markersize": 15, "markeredgewidth": 2}


def confidence_histogram(counts: Sequence[int], last: Sequence[int] | None) -> str:
    """Draw how many images have which mean confidence.

    Args:
        counts: By bin of 1 / `NUM_BINS`, this run's.
        last: The last run's, drawn as a line over it.
    """
    filled = [at for at, pair in enumerate(zip(counts, last or counts, strict=True)) if any(pair)]
    lowest = min(filled, default=0)
    together = _together(NUM_BINS - lowest, sum(counts))
    first = lowest // together * together
    edges = [at / NUM_BINS for at in range(first, NUM_BINS + 1, together)]
    with drawing() as (figure, axes):
        axes.stairs(_shares(counts, first, together), edges, fill=True, color=ACCENT, alpha=0.75)
        if last is not None and any(last):
            axes.stairs(_shares(last, first, together), edges, color=LAST, linewidth=2)
        axes.set_xlim(edges[0], 1)
        axes.xaxis.set_major_locator(_ticks())
        axes.set_xlabel("mean confidence of an image")
        axes.set_ylabel("images")
        axes.yaxis.set_major_formatter(_PER_CENT)
        _grid(axes, "y")
        return as_svg(figure, "histogram", "Histogram of the images' mean confidence")


def _together(num_bins: int, num_images: int) -> int:
    """Choose how many bins a bar holds."""
    wanted = min(_MAX_BARS, max(_MIN_BARS, 3 * num_images**0.5))
    return next((one for one in _BARS_TOGETHER if num_bins / one <= wanted), _BARS_TOGETHER[-1])


def _shares(counts: Sequence[int], first: int, together: int) -> list[float]:
    total = sum(counts) or 1
    return [sum(counts[at : at + together]) / total for at in range(first, len(counts), together)]


def class_mix(classes: Sequence[ClassTotal], num_pixels: int, last: Mapping[str, float]) -> str:
    """Draw the share of all pixels that each class has, in its colour.

    Args:
        classes: At most `MAX_CLASSES`, in the order from top to bottom.
        num_pixels: Number of pixels of all masks.
        last: The last run's shares by name, drawn as marks; may be empty.
    """
    shares = [label.num_pixels / (num_pixels or 1) for label in classes]
    with drawing(_HEAD_IN + _ROW_IN * len(classes)) as (figure, axes):
        colours = [_rgb(label.color) for label in classes]
        bars: dict[str, Any] = {"color": colours, "edgecolor": MUTED, "linewidth": 0.6}
        axes.barh(range(len(classes)), shares, 0.68, **bars)
        marks = [(last[one.name], at) for at, one in enumerate(classes) if one.name in last]
        if marks:
            axes.plot(*zip(*marks, strict=True), color=INK, zorder=3, **_MARK)
        pairs = zip(classes, shares, strict=True)
        ends = [max(share, last.get(label.name, 0.0)) for label, share in pairs]
        _write_at(axes, ends, [_percent(share) for share in shares])
        # There is room for the words beyond the longest bar, and no share beyond all.
        width = max([*ends, 1e-9]) * 1.22
        axes.set_xticks([tick for tick in _ticks().tick_values(0, width) if tick <= min(1, width)])
        axes.set_xlim(0, width)
        axes.xaxis.set_major_formatter(_PER_CENT)
        _name_rows(axes, [label.name for label in classes])
        return as_svg(figure, "mix", "Share of the pixels by class")


def _write_at(axes: Axes, ends: Sequence[float], words: Sequence[str]) -> None:
    """Write words behind the ends of bars, the first bar on top."""
    place: Any = {"textcoords": "offset points", "xytext": (7, 0), "va": "center", "fontsize": 10}
    for at, (end, text) in enumerate(zip(ends, words, strict=True)):
        axes.annotate(text, (end, at), **place)


def class_confidence(classes: Sequence[ClassTotal], last: Mapping[str, float]) -> str:
    """Draw the mean confidence of each class over its pixels.

    Args:
        classes: At most `MAX_CLASSES`, in the order from top to bottom; those without pixels have
            no dot.
        last: The last run's by name, drawn as marks; may be empty.
    """
    dots = [
        (label.mean_confidence, at, _rgb(label.color))
        for at, label in enumerate(classes)
        if label.mean_confidence is not None
    ]
    marks = [(last[one.name], at) for at, one in enumerate(classes) if one.name in last]
    lowest = min([*(dot[0] for dot in dots), *(mark[0] for mark in marks)], default=0.0)
    floor = max(0.0, int(lowest * 20 - 0.5) / 20)
    with drawing(_HEAD_IN + _ROW_IN * len(classes)) as (figure, axes):
        for value, at, colour in dots:
            axes.hlines(at, floor, value, color=LINE, linewidth=2, zorder=1)
            axes.plot(value, at, "o", color=colour, markersize=9, mec=MUTED, mew=0.8, zorder=4)
        if marks:
            axes.plot(*zip(*marks, strict=True), color=INK, zorder=3, **_MARK)
        axes.set_xlim(floor, 1.0 + 0.02 * (1 - floor))
        axes.xaxis.set_major_locator(_ticks())
        _name_rows(axes, [label.name for label in classes])
        return as_svg(figure, "of-classes", "Mean confidence by class")


def drift(found: Sequence[Distance]) -> str:
    """Draw how far each run is from the oldest one.

    Args:
        found: Oldest run first, two at least.
    """
    with drawing() as (figure, axes):
        _line(axes, [one.night for one in found], [one.class_mix for one in found], ACCENT)
        _line(axes, [one.night for one in found], [one.confidence for one in found], LAST)
        axes.set_ylim(0, max(0.1, axes.get_ylim()[1]))
        axes.set_ylabel("distance")
        return as_svg(figure, "drift", "Distance of each run from the oldest one")


def confidences_of_runs(nights: Sequence[Night]) -> str:
    """Draw the mean confidence of each run, oldest first."""
    with drawing() as (figure, axes):
        _line(axes, nights, [night.manifest.mean_confidence for night in nights], ACCENT)
        low, high = axes.get_ylim()
        spare = max(0.0, _LEAST_SPAN - (high - low)) / 2
        axes.set_ylim(low - spare, high + spare)
        axes.set_ylabel("mean confidence")
        return as_svg(figure, "confidences", "Mean confidence of each run")


def failures_of_runs(nights: Sequence[Night]) -> str:
    """Draw the share of each run's images that failed, oldest first."""
    shares = [one.manifest.num_failed / (one.manifest.num_images or 1) for one in nights]
    with drawing() as (figure, axes):
        _line(axes, nights, shares, ACCENT)
        axes.set_ylim(0, max(0.01, axes.get_ylim()[1]))
        axes.yaxis.set_major_formatter(_PER_CENT)
        axes.set_ylabel("failed")
        return as_svg(figure, "failures", "Share of each run's images that failed")


def _line(axes: Axes, nights: Sequence[Night], values: Sequence[float | None], colour: str) -> None:
    """Draw a value of each run, in order; hollow where the masks are of another network."""
    known = [(at, value) for at, value in enumerate(values) if value is not None]
    if known:
        axes.plot(*zip(*known, strict=True), color=colour, linewidth=1.8)
    for at, value in known:
        inside = colour if nights[at].same_network else "none"
        axes.plot(at, value, "o", color=colour, mfc=inside, markersize=6, mew=1.6)
    axes.set_xlim(-0.3, len(nights) - 0.7)
    ends = (nights[0], nights[-1])
    axes.set_xticks(
        [0, len(nights) - 1], [f"{one.manifest.created_at:%Y-%m-%d %H:%M}" for one in ends]
    )
    for label, side in zip(axes.get_xticklabels(), _SIDES, strict=True):
        label.set_horizontalalignment(side)
    axes.yaxis.set_major_locator(_ticks())
    _grid(axes, "y")


def throughput(timeline: Timeline, num_shards: int) -> str:
    """Draw images per second over the time of a run, pauses included.

    Args:
        timeline: The timeline of the run.
        num_shards: Number of shards of the run.
    """
    counts, step_s = list(timeline.num_images), float(timeline.step_s)
    while len(counts) > max(4, num_shards / _SHARDS_PER_STEP):
        counts, step_s = [sum(counts[at : at + 2]) for at in range(0, len(counts), 2)], 2 * step_s
    unit, unit_s = _unit(step_s * len(counts))
    edges = [at * step_s / unit_s for at in range(len(counts) + 1)]
    with drawing() as (figure, axes):
        speeds = [count / step_s for count in counts]
        axes.stairs(speeds, edges, fill=True, color=ACCENT, alpha=0.3)
        axes.stairs(speeds, edges, color=ACCENT, linewidth=1.8)
        axes.set_xlim(0, edges[-1])
        axes.set_ylim(0, max([*speeds, 1e-9]) * 1.12)
        axes.set_xlabel(f"{unit} since the start")
        axes.set_ylabel("images/s")
        _grid(axes, "y")
        return as_svg(figure, "throughput", "Images per second over the time of the run")


def _unit(seconds: float) -> tuple[str, float]:
    if seconds < 180:
        return "seconds", 1.0
    return ("minutes", 60.0) if seconds < 180 * 60 else ("hours", 3600.0)


def step_seconds(seconds: Mapping[str, float]) -> str:
    """Draw what each step has taken, summed over all shards.

    Args:
        seconds: By step, in the order of the steps.
    """
    total = sum(seconds.values()) or 1.0
    with drawing(_HEAD_IN + 0.36 * len(seconds)) as (figure, axes):
        axes.barh(range(len(seconds)), list(seconds.values()), 0.62, color=ACCENT)
        words = [f"{value:,.1f} s, {_percent(value / total)}" for value in seconds.values()]
        _write_at(axes, list(seconds.values()), words)
        axes.set_xlim(0, max([*seconds.values(), 1e-9]) * 1.45)
        axes.set_xlabel("seconds, all shards together")
        _name_rows(axes, list(seconds))
        return as_svg(figure, "steps", "Seconds by step")


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [_short(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["left"].set_visible(False)
    _grid(axes, "x")


def _ticks() -> MaxNLocator:
    return MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])


def _grid(axes: Axes, axis: Any) -> None:
    axes.grid(visible=True, axis=axis)
    axes.tick_params(axis=axis, length=0)


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}\u2026"


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.0005 or not share else "<0.1%"


def _rgb(colour: Sequence[int]) -> tuple[float, ...]:
    return tuple(value / 255 for value in colour)
