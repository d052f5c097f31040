"""How far runs are from each other, and which runs that is told of."""

from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.labelling.history import History
from pipeline.labelling.page.comparison import Night, distances, earlier_nights, jensen_shannon
from pipeline.labelling.publish import publish
from pipeline.labelling.report import as_html
from pipeline.labelling.runs import Run, run_folder
from tests.disk_runs import draw_images, label_run, start_run
from tests.pipeline.labelling.page.made_manifests import count_confidence, make_manifest

# Of half a distribution that two share, as in `test_the_distance_is_the_published_one`.
_OF_A_HALF = 0.5579230452841438


def test_the_distance_of_what_is_alike_is_nothing() -> None:
    """Weights of another sum are the same distribution."""
    assert jensen_shannon([1, 2, 0], [2, 4, 0]) == pytest.approx(0, abs=1e-9)


def test_the_distance_of_what_shares_nothing_is_one() -> None:
    """Distributions without a common value are as far apart as can be."""
    assert jensen_shannon([1, 0, 3], [0, 5, 0]) == pytest.approx(1)


def test_the_distance_is_the_published_one() -> None:
    """It is what the definition gives, written out for two values, and the same both ways."""
    # Half of 1 log2(1 / 0.75) + 0.5 log2(0.5 / 0.75) + 0.5 log2(0.5 / 0.25), and its root.
    assert jensen_shannon([1, 0], [1, 1]) == pytest.approx(_OF_A_HALF)
    assert jensen_shannon([1, 1], [1, 0]) == pytest.approx(_OF_A_HALF)


def test_runs_are_as_far_from_the_oldest_as_their_mixes_are() -> None:
    """Class mix and confidence are each compared with the oldest run's, by name and by bin."""
    nights = [
        Night(make_manifest(mix, confidences=count_confidence(counts)), same_network=True)
        for mix, counts in (
            ({"sky": 40}, {98: 10}),
            ({"sky": 5, "road": 5}, {98: 4, 99: 6}),
            ({"road": 70}, {50: 5, 98: 5}),
        )
    ]

    found = distances(nights)

    assert [one.night for one in found] == nights
    assert [one.class_mix for one in found] == pytest.approx([0, _OF_A_HALF, 1], abs=1e-9)
    # Two bins are one.
    assert [one.confidence for one in found] == pytest.approx([0, 0, _OF_A_HALF], abs=1e-9)


def test_runs_without_masks_are_as_far_as_nobody_knows() -> None:
    """A run without masks is left out; one that does not say its confidences has no distance."""
    nights = [
        Night(make_manifest(mix, num_ok=num_ok), same_network=True)
        for mix, num_ok in (({}, 0), ({"sky": 1}, 10), ({"road": 1}, 10))
    ]

    found = distances(nights)

    assert [one.night for one in found] == nights[1:]
    assert [one.class_mix for one in found] == pytest.approx([0, 1], abs=1e-9)
    assert [one.confidence for one in found] == [None, None]


def test_drift_is_told_of_30_runs(tmp_path: Path) -> None:
    """Of 32 earlier runs the last 29 stand beside the run itself, oldest first."""
    run = start_run(tmp_path, draw_images(tmp_path, 2), run_id="tonight")
    label_run(run)
    manifest = publish(run, str)
    for days in range(1, 33):
        _finish_earlier(run, days)
    history = History(run.storage, run.output)

    nights = earlier_nights(history, run)

    ids = [night.manifest.run_id for night in nights]
    assert ids == [f"{days}-days-ago" for days in range(29, 0, -1)]
    assert "Each of the last 30 runs of this input" in as_html(run, manifest, history=history)


def _finish_earlier(run: Run, days: int) -> None:
    """Write record and manifest of a run as if it had been done some days earlier."""
    fields = {
        "run_id": f"{days}-days-ago",
        "created_at": run.record.created_at - timedelta(days=days),
    }
    folder = run_folder(run.output, str(fields["run_id"]))
    manifest = run.manifest()
    assert manifest is not None
    for name, record in (("run.json", run.record), ("manifest.json", manifest)):
        text = record.model_copy(update=fields).model_dump_json()
        run.storage.write(f"{folder}/{name}", text.encode())
