"""`runs`: the runs of an output, newest first."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from jobs.logs.output import say
from pipeline.errors import EXIT_OK
from pipeline.labelling.history import History
from pipeline.labelling.records import Manifest
from pipeline.labelling.runs import Run
from pipeline.settings.reports import RunsSettings

FINISHED, COMMITTED, UNFINISHED = "finished", "committed", "unfinished"
_HEADINGS = (
    "run",
    "state",
    "network",
    "weights",
    "images",
    "failed",
    "confidence",
    "started (UTC)",
    "took",
)
# Numbers are aligned on the right.
_NUMBERS = frozenset({"images", "failed", "confidence", "took"})


def run(settings: RunsSettings) -> int:
    """Print the runs of an output.

    Args:
        settings: From file, environment and flags.

    Returns:
        The exit code.

    Raises:
        InputError: There is no run.
    """
    history = History.with_archive(settings.storage(), settings.output)
    runs = history.require(None)
    manifests, finished = history.manifests(runs), history.finished(runs)
    found = [_describe(*one) for one in zip(runs, manifests, finished, strict=True)][::-1]
    say(json.dumps(found, indent=1) if settings.json_ else _as_table([_row(one) for one in found]))
    return EXIT_OK


def _describe(run: Run, manifest: Manifest | None, finished: bool) -> dict[str, Any]:  # noqa: FBT001 - one of three columns
    """Return what programs are told of a run; a run without a manifest has no totals yet."""
    record = run.record
    found = {
        "run_id": run.run_id,
        "state": FINISHED if finished else COMMITTED if manifest else UNFINISHED,
        "input": record.input,
        "network": record.network.deciding.get("network"),
        "weights": record.network.weights,
        "fingerprint": record.network.fingerprint,
        "num_images": record.num_images,
        "num_skipped": record.num_skipped,
        "created_at": record.created_at.isoformat(),
    }
    if manifest is not None:
        found |= {
            "num_failed": manifest.num_failed,
            "mean_confidence": manifest.mean_confidence,
            "finished_at": manifest.finished_at.isoformat(),
            "seconds": (manifest.finished_at - record.created_at).total_seconds(),
        }
    return found


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    confidence, seconds = found.get("mean_confidence"), found.get("seconds")
    return (
        found["run_id"],
        found["state"],
        str(found["network"]),
        # Training calls every model alike; its run's name stands before it.
        "/".join(found["weights"].split("/")[-2:]),
        f"{found['num_images']:,}",
        f"{found['num_failed']:,}" if "num_failed" in found else "",
        "" if confidence is None else f"{confidence:.3f}",
        f"{datetime.fromisoformat(found['created_at']):%Y-%m-%d %H:%M}",
        "" if seconds is None else _duration(seconds),
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _as_table(rows: Sequence[tuple[str, ...]]) -> str:
    columns = list(zip(_HEADINGS, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if heading in _NUMBERS else cell.ljust(width)
            for heading, cell, width in zip(_HEADINGS, line, widths, strict=True)
        ).rstrip()
        for line in (_HEADINGS, *rows)
    )
