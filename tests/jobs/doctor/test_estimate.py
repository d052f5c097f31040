"""The doctor's estimate, where it needs no Ray."""

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.doctor.estimate import _to_do
from pipeline.labelling.publish import publish
from pipeline.labelling.session import open_job
from tests.disk_runs import NUM_CLASSES, draw_images, label_run, make_settings, start_run


@pytest.mark.parametrize("sample", [0, 2, 9])
def test_an_output_that_is_done_has_nothing_to_sample(tmp_path: Path, sample: int) -> None:
    """Where all images are labelled there are none to do, and none to try."""
    source = draw_images(tmp_path, 3)
    job = open_job(make_settings(tmp_path, source, num_classes=NUM_CLASSES, precision="fp32"))
    run = start_run(tmp_path, source, network=job.record)
    label_run(run)
    publish(run, str)
    again = open_job(make_settings(tmp_path, source, num_classes=NUM_CLASSES))
    assert _to_do(again, replace(again.look(), run=None), sample) == (0, [])
