"""The page of a run whose real page could not be made: its totals, and how to try again."""

from html import escape

from pipeline.labelling.records import Manifest
from pipeline.labelling.runs import Run

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'">
<meta name="color-scheme" content="light dark">
<title>Run {run_id}</title>
</head>
<body>
<h1>{run_id}</h1>
<p>{num_ok:,} of {num_images:,} images have a mask, {num_failed:,} failed. \
Masks and tables are whole; only this page could not be made: {why}</p>
<p><code>fcn report {output} --run-id {run_id} --html</code> makes it anew.</p>
</body>
</html>
"""


def bare_page(run: Run, manifest: Manifest, why: str) -> str:
    """Write a page that asks for nothing that could fail.

    Args:
        run: The run.
        manifest: Of it.
        why: What kept the real page from being made.
    """
    return _PAGE.format(
        run_id=escape(run.run_id),
        output=escape(run.output),
        # A message may quote a key that is no valid text.
        why=escape(why.encode(errors="replace").decode()),
        num_ok=manifest.num_ok,
        num_images=manifest.num_images,
        num_failed=manifest.num_failed,
    )
