"""Report: the manifest and the tables of a run -> what a person reads.

Keys, names and messages come from outside, so everything is escaped for HTML.
"""

import html
import os
from collections.abc import Iterator

import pyarrow.compute as pc

from pipeline.runs import Manifest, Run
from pipeline.schema import ERROR

_MAX_FAILED_SHOWN = 20

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #ddd;
overflow-wrap: anywhere }} .number {{ text-align: right }}
.swatch {{ display: inline-block; width: 1em; height: 1em; border: 1px solid #999 }}
.bar {{ display: inline-block; height: .8em; background: #4a78b5 }}
.warning {{ background: #fff1cc; padding: .6rem 1rem }}
</style></head><body><h1>{title}</h1>
{body}
</body></html>
"""


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
        lines += [f"  {code:<20}{number:>8,}" for code, number in manifest.errors.items()]
        lines += [f"  {key}: {code}: {text}" for key, code, text in _failed(run, manifest)]
    return "\n".join(lines)


def as_html(run: Run, manifest: Manifest) -> str:
    """Write the report as one HTML page that needs nothing beside it.

    Args:
        run: The run, for its failed images.
        manifest: Its manifest.
    """
    parts = [
        _definitions(run, manifest),
        "<h2>Classes</h2>",
        _class_table(manifest),
    ]
    if manifest.untrained:
        warning = "The network is untrained (weights=random:SEED): its classes mean nothing."
        parts.insert(0, f'<p class="warning">{warning}</p>')
    if manifest.num_failed:
        parts += ["<h2>Failed images</h2>", _failed_tables(run, manifest)]
    title = html.escape(f"Run {manifest.run_id}")
    return _PAGE.format(title=title, body="\n".join(parts))


def _definitions(run: Run, manifest: Manifest) -> str:
    network = run.record.network
    seconds = (manifest.finished_at - manifest.created_at).total_seconds()
    facts = {
        "Images": f"{manifest.num_images:,}: {manifest.num_ok:,} with a mask, "
        f"{manifest.num_failed:,} failed; {manifest.num_skipped:,} more were done earlier",
        "Input": manifest.input,
        "Masks": run.masks_folder,
        "Network": f"{network.deciding['network']}, weights {network.weights}",
        "Fingerprint": manifest.fingerprint,
        "Planned": f"{manifest.created_at:%Y-%m-%d %H:%M:%S} UTC",
        "Last image": f"{manifest.finished_at:%Y-%m-%d %H:%M:%S} UTC, {seconds:,.0f} s later",
    }
    rows = (f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in facts.items())
    return f"<table>{''.join(rows)}</table>"


def _class_table(manifest: Manifest) -> str:
    rows = []
    for label in manifest.classes:
        share = label.num_pixels / manifest.num_pixels if manifest.num_pixels else 0.0
        colour = "rgb({}, {}, {})".format(*label.color)
        rows.append(
            f'<tr><td><span class="swatch" style="background: {colour}"></span> '
            f"{label.id}</td><td>{html.escape(label.name)}</td>"
            f'<td class="number">{label.num_pixels:,}</td>'
            f'<td class="number">{label.num_images:,}</td>'
            f'<td><span class="bar" style="width: {10 * share:.2f}rem"></span> '
            f"{share:.1%}</td></tr>"
        )
    head = "<tr><th>Class</th><th>Name</th><th>Pixels</th><th>Images</th><th>Share</th></tr>"
    return f"<table>{head}{''.join(rows)}</table>"


def _failed_tables(run: Run, manifest: Manifest) -> str:
    codes = "".join(
        f'<tr><td>{code}</td><td class="number">{number:,}</td></tr>'
        for code, number in manifest.errors.items()
    )
    images = "".join(
        "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row) + "</tr>"
        for row in _failed(run, manifest)
    )
    return (
        f"<table><tr><th>Code</th><th>Images</th></tr>{codes}</table>"
        f"<h3>The first {_MAX_FAILED_SHOWN}</h3>"
        f"<table><tr><th>Image</th><th>Code</th><th>Reason</th></tr>{images}</table>"
    )


def _failed(run: Run, manifest: Manifest) -> Iterator[tuple[str, str, str]]:
    if not manifest.num_failed:
        return
    left = _MAX_FAILED_SHOWN
    for table in run.rows(["key", "status", "error_code", "error_message"]):
        bad = table.filter(pc.equal(table["status"], ERROR)).slice(0, left)
        left -= bad.num_rows
        for row in bad.to_pylist():
            yield row["key"], row["error_code"], _one_line(row["error_message"])
        if not left:
            return


def _one_line(text: str) -> str:
    return " ".join(text.split(os.linesep)).strip()[:300]
