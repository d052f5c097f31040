"""The outcome of a command: which share of bad images the error budget judges."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.labelling.session import Outcome
from tests.disk_runs import draw_images, start_run


def _rate(folder: Path, *numbers: int, **more: Any) -> float:
    """Return the error rate of a run: its images, failed, skipped, failed of the skipped ones."""
    run = start_run(folder, draw_images(folder, 1))
    return Outcome(run, None, *numbers, **more).error_rate


@pytest.mark.parametrize(
    ("numbers", "retried", "rate"),
    [
        ((10, 5, 990, 0), (0, 0), 0.5),
        ((10, 5, 10, 10), (0, 0), 0.75),
        # Five of five old failures fail again: five of a thousand have no mask.
        ((5, 5, 995, 0), (5, 5), 0.005),
        # Of five new images one fails.
        ((10, 6, 990, 0), (5, 5), 0.2),
        # All old failures have a mask now, which does not thin the new ones' failures out.
        ((10, 1, 990, 0), (8, 0), 0.5),
    ],
)
def test_first_attempts_are_judged_by_themselves(
    numbers: tuple[int, ...], retried: tuple[int, int], rate: float, tmp_path: Path
) -> None:
    """The run's new images and the whole input count, whichever is worse; old failures do not."""
    more = {"num_retried": retried[0], "num_retried_failed": retried[1]}
    assert _rate(tmp_path, *numbers, **more) == pytest.approx(rate)
