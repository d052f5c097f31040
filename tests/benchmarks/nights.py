"""What a start costs after many nights: requests, seconds, peak memory; with nothing new.

    python -m tests.benchmarks.nights [NUM_IMAGES] [NIGHTS ...]

The first night answers for all images but those of the later nights, which add some each. Runs are
published without masks, as in plan_memory.py; each night archives what a job would archive.
"""

import sys
import tempfile
from pathlib import Path

from pipeline.labelling.archive import read_archive
from pipeline.labelling.draft import draft
from pipeline.labelling.history import History
from pipeline.labelling.plan import start_run
from pipeline.labelling.session import RUNS_APART
from pipeline.settings.label import LabelSettings
from tests.benchmarks.plan_memory import BUCKET, Many, finish, measured
from tests.disk_runs import make_settings, network_record

_NEW_EACH_NIGHT = 20


def _night(first: int, num_images: int, settings: LabelSettings) -> None:
    """Label what is new, which is all that this night's listing shows: it is faster so."""
    storage = Many(first=first, num_images=num_images)
    history = History(storage, settings.output, read_archive(storage, settings.output))
    run = start_run(storage, settings, network_record(), draft(history, settings, network_record()))
    finish(run)
    history.keep_archive(RUNS_APART)


def _start(num_images: int, settings: LabelSettings) -> None:
    storage = Many(num_images=num_images)
    history = History(storage, settings.output, read_archive(storage, settings.output))
    drafted = draft(history, settings, network_record())
    assert (drafted.num_images, drafted.num_skipped) == (0, num_images)
    print(f"  requests: {dict(storage.requests)}")


def main(num_images: int, nights: list[int]) -> None:
    """Go through the nights, and measure a start after some of them."""
    with tempfile.TemporaryDirectory() as name:
        settings = make_settings(Path(name), BUCKET, io_threads=16)
        before, listed = 0, num_images - _NEW_EACH_NIGHT * (max(nights) - 1)
        for night in range(1, max(nights) + 1):
            _night(before, listed, settings)
            if night in nights:
                with measured(f"start after {night} nights, {listed:,}"):
                    _start(listed, settings)
            before, listed = listed, listed + _NEW_EACH_NIGHT


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000,
        [int(given) for given in sys.argv[2:]] or [1, 30, 1000],
    )
