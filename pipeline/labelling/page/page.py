"""The page: what is known of a run, laid out by `page.html` and `page.css`.

One file that needs nothing beside it, asks for nothing and runs nothing: its own policy forbids
the browser both.
"""

import importlib.resources
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import jinja2

from pipeline.errors import PipelineError
from pipeline.labelling.confidences import count_confidences
from pipeline.labelling.history import History
from pipeline.labelling.page import charts, numbers
from pipeline.labelling.page.comparison import (
    Night,
    class_shares,
    distances,
    earlier_nights,
)
from pipeline.labelling.page.galleries import make_galleries
from pipeline.labelling.page.reads import Deadline, in_a_hurry, read_until
from pipeline.labelling.page.tiles import make_tiles
from pipeline.labelling.records import ClassTotal, FailedImage, Manifest
from pipeline.labelling.runs import Run
from pipeline.settings.label import MAX_REPORT_IMAGES

_log = logging.getLogger(__name__)

# For all that a page reads, and of it for the runs before, without which it stands, too.
_SECONDS, _FOR_NIGHTS = 15.0, 4.0
# Classes that no mask has: more of them are one line to unfold.
_MAX_UNSEEN = 12


@dataclass(frozen=True)
class Chart:
    """A chart with its heading and what it shows; `key` says which legend it needs."""

    title: str
    svg: str
    caption: str
    key: str = ""


def make_page(  # noqa: PLR0913 - what a page is made of, by name
    run: Run,
    manifest: Manifest,
    history: History,
    *,
    num_pictures: int,
    failed: Sequence[FailedImage],
    cost: Sequence[str],
) -> str:
    """Write the page of a run.

    Args:
        run: The run.
        manifest: Its manifest.
        history: The history of the output, for the runs before it.
        num_pictures: Images to show, at most; 0 reads and copies none.
        failed: The first failed images, fit to print.
        cost: What the run has cost, in lines.
    """
    deadline = Deadline.after(_SECONDS)
    nights, unread = _nights(history, run, deadline.within(_FOR_NIGHTS))
    last = nights[-1] if nights else None
    last_shares = class_shares(last.manifest) if last else {}
    soon = deadline.within(_FOR_NIGHTS)
    this = Night(_with_confidences(run, manifest, soon), same_network=True)
    other = None if last is None or last.same_network else last
    galleries = make_galleries(run, manifest, num_pictures, deadline, other)
    return _template().render(
        run=run,
        manifest=manifest,
        network=run.record.network,
        last=last,
        unread=unread,
        tiles=make_tiles(run, manifest, last.manifest if last else None),
        confidence_charts=list(_confidence_charts(this.manifest, last.manifest if last else None)),
        run_charts=list(_run_charts([*nights, this])),
        work_charts=list(_work_charts(manifest)),
        classes=_by_share(manifest),
        unseen=_unseen(manifest, last_shares),
        last_shares=last_shares,
        galleries=galleries,
        no_pictures=not num_pictures,
        most_pictures=MAX_REPORT_IMAGES,
        failed=failed,
        cost=cost,
        took_s=_took_s(manifest),
    )


def _template() -> jinja2.Template:
    folder = importlib.resources.files("pipeline.labelling.page")
    # Keys, names and messages come from outside: autoescape keeps them text.
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "whole": numbers.whole,
        "percent": numbers.percent,
        "points": numbers.points,
        "three": numbers.three,
        "change": partial(numbers.signed, decimals=3),
        "moment": _moment,
        "duration": numbers.duration,
    }
    environment.globals["css"] = folder.joinpath("page.css").read_text()
    return environment.from_string(folder.joinpath("page.html").read_text())


def _nights(history: History, run: Run, deadline: Deadline) -> tuple[list[Night], str]:
    """Read the earlier runs, or say why they can't be read: the page of this one stands."""
    try:
        return read_until(deadline, partial(earlier_nights, history, run)), ""
    except (PipelineError, TimeoutError) as error:
        why = str(error) or "not read in time"
        _log.warning("earlier runs are left out of the report: %s", why)
        return [], why


def _with_confidences(run: Run, manifest: Manifest, deadline: Deadline) -> Manifest:
    """Look up in the tables what manifests of earlier versions do not say."""
    if manifest.confidences is not None:
        return manifest
    try:
        counts = read_until(deadline, partial(_confidences, in_a_hurry(run), manifest))
    except (PipelineError, TimeoutError) as error:
        why = str(error) or "not read in time"
        _log.warning("the report lacks the histogram of confidences: %s", why)
        return manifest
    total = [sum(column) for column in zip(*counts, strict=True)]
    return manifest.model_copy(update={"confidences": total})


def _confidences(run: Run, manifest: Manifest) -> list[list[int]]:
    tables = run.published(manifest, ["mean_confidence"])
    return [count_confidences(table["mean_confidence"]) for table in tables]


def _by_share(manifest: Manifest) -> list[ClassTotal]:
    return sorted(manifest.classes, key=lambda label: (-label.num_pixels, label.id))


def _unseen(manifest: Manifest, last_shares: Mapping[str, float]) -> list[ClassTotal]:
    """List the classes without a pixel in this run and the last, if they are too many for rows."""
    found = [
        label
        for label in manifest.classes
        if not label.num_pixels and not last_shares.get(label.name)
    ]
    return found if len(found) > _MAX_UNSEEN else []


def _confidence_charts(manifest: Manifest, last: Manifest | None) -> Iterable[Chart]:
    if manifest.confidences and any(manifest.confidences):
        yield _histogram(manifest.confidences, last.confidences if last else None)
    shown = [label for label in _by_share(manifest) if label.num_pixels][: charts.MAX_CLASSES]
    if shown:
        yield _class_mix(shown, manifest, class_shares(last) if last else {})
    if any(label.mean_confidence is not None for label in shown):
        yield _class_confidence(shown, last.classes if last else ())


def _histogram(counts: Sequence[int], last: Sequence[int] | None) -> Chart:
    return Chart(
        "How sure the network is",
        charts.confidence_histogram(counts, last),
        "Share of the images by mean confidence: the mean, over an image's pixels, of the "
        "probability that the network gives to the class it chose.",
        "line" if last and any(last) else "",
    )


def _class_mix(shown: Sequence[ClassTotal], manifest: Manifest, last: Mapping[str, float]) -> Chart:
    return Chart(
        "Class mix",
        charts.class_mix(shown, manifest.num_pixels, last),
        "Share of all pixels of this run's masks." + _how_many(shown, manifest),
        _key_of_marks(shown, last),
    )


def _class_confidence(shown: Sequence[ClassTotal], last: Sequence[ClassTotal]) -> Chart:
    known = {one.name: one.mean_confidence for one in last}
    sure = {name: value for name, value in known.items() if value is not None}
    return Chart(
        "Confidence by class",
        charts.class_confidence(shown, sure),
        "Mean confidence over the pixels of each class. A class far to the left is one that the "
        "network has seen too little of, or confuses with another.",
        _key_of_marks(shown, sure),
    )


def _key_of_marks(shown: Sequence[ClassTotal], last: Mapping[str, float]) -> str:
    """Explain marks of the last run where there are any: another network has other classes."""
    return "mark" if any(label.name in last for label in shown) else ""


def _how_many(shown: Sequence[ClassTotal], manifest: Manifest) -> str:
    present = sum(label.num_pixels > 0 for label in manifest.classes)
    return f" The {len(shown)} largest of {present} classes." if len(shown) < present else ""


def _run_charts(nights: Sequence[Night]) -> Iterable[Chart]:
    found = distances(nights)
    if len(found) < 2:
        return
    of = f"Each of the last {len(nights)} runs of this input, the newest on the right."
    hollow = " Hollow: of another network." if _of_others(nights) else ""
    yield Chart(
        "Drift",
        charts.drift(found),
        "Jensen-Shannon distance of each run from the oldest one shown: 0 is alike, 1 has nothing "
        f"in common. Runs of few images differ by chance.{hollow}",
        "drift",
    )
    yield Chart("Mean confidence", charts.confidences_of_runs(nights), of + hollow)
    yield Chart("Failed images", charts.failures_of_runs(nights), of)


def _of_others(nights: Sequence[Night]) -> bool:
    return any(not night.same_network for night in nights)


def _work_charts(manifest: Manifest) -> Iterable[Chart]:
    if manifest.timeline is not None and any(manifest.timeline.num_images):
        yield Chart(
            "Throughput",
            charts.throughput(manifest.timeline, manifest.num_shards),
            "Images by the moment at which their shard was written. Pauses between two commands "
            "are in it.",
        )
    if manifest.work is not None and any(manifest.work.seconds.values()):
        yield Chart(
            "Where the time went",
            charts.step_seconds(manifest.work.seconds),
            "Steps of several shards overlap: together they take longer than the run.",
        )


def _took_s(manifest: Manifest) -> float:
    return (manifest.finished_at - manifest.created_at).total_seconds()


def _moment(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}"
