"""`report`: show what a run has done."""

import json
from typing import Any

from jobs.logs.output import say
from pipeline.errors import EXIT_OK
from pipeline.labelling import report
from pipeline.labelling.history import History
from pipeline.labelling.records import Manifest
from pipeline.labelling.runs import Run
from pipeline.settings.reports import ReportSettings


def run(settings: ReportSettings) -> int:
    """Print the report of the newest run, of one, or of all; or write its page anew.

    Args:
        settings: From file, environment and flags.

    Returns:
        The exit code.

    Raises:
        InputError: There is no run.
    """
    storage = settings.storage()
    history = History.with_archive(storage, settings.output)
    runs = history.require(settings.run_id)
    shown = runs if settings.all_ else runs[-1:]
    manifests = history.manifests(shown)
    if settings.html:
        for one in zip(shown, manifests, strict=True):
            say(_write_page(history, settings.report_images, *one))
        return EXIT_OK
    if settings.json_:
        found = [_as_json(*one) for one in zip(shown, manifests, strict=True)]
        say(json.dumps(found if settings.all_ else found[0], indent=1))
        return EXIT_OK
    say("\n\n".join(_as_text(*one) for one in zip(shown, manifests, strict=True)))
    if len(shown) < len(runs):
        say(f"\n{len(runs) - 1} earlier run(s): fcn runs {settings.output}")
    return EXIT_OK


def _write_page(
    history: History, num_pictures: int | None, run: Run, manifest: Manifest | None
) -> str:
    if manifest is None:
        return f"Run {run.run_id} is unfinished and has no report yet"
    uri = f"{run.folder}/report.html"
    page = report.as_html(run, manifest, history=history, num_pictures=num_pictures)
    run.storage.write(uri, page.encode())
    return uri


def _as_json(run: Run, manifest: Manifest | None) -> dict[str, Any]:
    return {"run_id": run.run_id} if manifest is None else manifest.model_dump(mode="json")


def _as_text(run: Run, manifest: Manifest | None) -> str:
    if manifest is not None:
        return report.as_text(run, manifest)
    return (
        f"Run {run.run_id} is unfinished: {len(run.missing())} of {run.record.num_shards} shards "
        "to do; the command that started it resumes it, with all of its settings: input="
        f"{run.record.input!r}, weights={run.record.network.weights!r}"
    )
