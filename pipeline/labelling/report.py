"""Report: the manifest and the tables of a run -> what a person reads."""

from collections.abc import Iterator, Mapping

import pyarrow.compute as pc

from pipeline.labelling.advice import cost_lines, spent_lines
from pipeline.labelling.history import History
from pipeline.labelling.records import NUM_FAILED_KEPT, FailedImage, Manifest
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import ERROR
from pipeline.settings.label import REPORT_IMAGES


def as_text(run: Run, manifest: Manifest) -> str:
    """Write the report for a terminal.

    Args:
        run: The run, for its failed images.
        manifest: Its manifest.
    """
    headline = (
        f"Run {manifest.run_id}: {manifest.num_ok} of {manifest.num_images} images have a mask, "
        f"{manifest.num_failed} failed, {manifest.num_skipped} were done by earlier runs"
    )
    lines = [
        headline,
        f"  input  {manifest.input}",
        f"  masks  {run.masks_folder}",
        f"  tables {run.output}/images/run={run.run_id}",
        f"         {run.output}/class_statistics/run={run.run_id}",
        f"  report {run.folder}/report.html",
    ]
    if manifest.untrained:
        lines.append("  The network is untrained (weights=random:SEED): its classes mean nothing.")
    lines += ["", f"{'class':<24}{'pixels':>16}{'share':>9}{'images':>10}"]
    for label in manifest.classes:
        if label.num_pixels:
            share = label.num_pixels / manifest.num_pixels
            lines.append(
                f"{label.name[:23]:<24}{label.num_pixels:>16,}{share:>8.1%}{label.num_images:>10,}"
            )
    absent = sum(not label.num_pixels for label in manifest.classes)
    if absent:
        lines.append(f"({absent} classes appear in no image)")
    if manifest.num_failed:
        lines += ["", "Failed images:"]
        lines += [f"  {code:<20}{number:>8,}" for code, number in _most_first(manifest.errors)]
        lines += [
            f"  {one.key}: {one.error_code}: {one.error_message}" for one in _failed(run, manifest)
        ]
    if cost := _cost(run, manifest):
        lines += ["", *cost]
    return "\n".join(lines)


def as_html(
    run: Run, manifest: Manifest, *, history: History, num_pictures: int | None = None
) -> str:
    """Write the report as one HTML page that needs nothing beside it.

    Args:
        run: The run, for its images and masks.
        manifest: Its manifest.
        history: The history of the output, for the runs before it.
        num_pictures: Images to show, at most; None: as the command said that began the run.
    """
    # matplotlib takes a while to load, which nobody waits for who writes no page.
    from pipeline.labelling.page.page import make_page  # noqa: PLC0415

    if num_pictures is None:
        num_pictures = run.record.settings.get("report_images", REPORT_IMAGES)
    return make_page(
        run,
        manifest,
        history,
        num_pictures=num_pictures,
        failed=_failed(run, manifest),
        cost=_cost_words(run, manifest),
    )


def _most_first(errors: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(errors.items(), key=lambda one: (-one[1], one[0]))


def _cost(run: Run, manifest: Manifest) -> list[str]:
    if manifest.work is None:
        return []
    price = run.record.settings.get("price_per_node_hour")
    return cost_lines(manifest.work, manifest.num_images, price)


def _cost_words(run: Run, manifest: Manifest) -> list[str]:
    """Leave out the table of steps, which the page draws."""
    if manifest.work is None:
        return []
    price = run.record.settings.get("price_per_node_hour")
    return list(spent_lines(manifest.work, manifest.num_images, price))


def _failed(run: Run, manifest: Manifest) -> list[FailedImage]:
    kept = manifest.failed
    return [
        FailedImage(
            key=_printable(image.key),
            error_code=image.error_code,
            error_message=_printable(image.error_message),
        )
        for image in (_failed_of_tables(run, manifest) if kept is None else kept)
    ]


def _failed_of_tables(run: Run, manifest: Manifest) -> Iterator[FailedImage]:
    """Look up in the tables what manifests of earlier versions do not say."""
    left = min(NUM_FAILED_KEPT, manifest.num_failed)
    columns = ["status", *FailedImage.model_fields]
    for table in run.published(manifest, columns) if left else ():
        bad = table.filter(pc.equal(table["status"], ERROR)).slice(0, left)
        left -= bad.num_rows
        yield from (FailedImage(**row) for row in bad.to_pylist())
        if not left:
            return


def _printable(text: str) -> str:
    """Replace what would break a line or steer a terminal."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)[:300]
