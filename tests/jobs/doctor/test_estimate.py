"""The doctor's estimate, where it needs no Ray."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from jobs.doctor.estimate import _to_do
from pipeline.errors import InputError
from pipeline.labelling.measure import harmless
from pipeline.labelling.publish import publish
from pipeline.labelling.session import open_job
from pipeline.settings.cluster import DoctorSettings
from tests.disk_runs import (
    NUM_CLASSES,
    draw_images,
    encode,
    label_run,
    make_settings,
    random_pixels,
    start_run,
)

_POISON = Path(__file__).parents[2] / "poison"


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


def test_what_ends_its_decoder_is_left_out_of_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that kills or hangs its decoder does not end the measurement; damage stays."""
    monkeypatch.syspath_prepend(str(_POISON))
    settings = DoctorSettings(input="/in", output="/out", weights="random:0", max_image_s=2)
    good = encode(Image.fromarray(random_pixels(0, 5, 7, 3)), "PNG")
    sample = [
        {"uri": str(number), "data": data}
        for number, data in enumerate(
            [good, good + b"poison:segv", good[:50], good + b"poison:hang", None]
        )
    ]

    assert [image["uri"] for image in harmless(sample, settings)] == ["0", "2", "4"]  # type: ignore[arg-type]
    with pytest.raises(InputError, match="all 1 images of the sample kill or hang"):
        harmless(sample[1:2], settings)  # type: ignore[arg-type]
