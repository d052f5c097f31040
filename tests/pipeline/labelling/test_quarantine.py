"""Quarantine: a shard that replicas have died over, in this process and without Ray."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.labelling.fetch import Fetch
from pipeline.labelling.marks import Marks
from pipeline.labelling.quarantine import Gate, Limits
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import ImageRow
from pipeline.labelling.segment import Placement, Segmenter
from tests.disk_runs import RedPredictor, draw_images, make_settings, start_run


class _Killer(RedPredictor):
    """Dies of pictures of one height, as far as a test can: with an exception that passes."""

    def __init__(self, height: int) -> None:
        super().__init__()
        self._height = height

    def predict(self, images: Any) -> Any:
        found = super().predict(images)
        if any(image.shape[0] == self._height for image in images):
            raise KeyboardInterrupt
        return found


def _label(run: Run, predictor: Any) -> list[ImageRow]:
    settings = make_settings(Path("unused"), "in")
    placement = Placement(use_gpu=False, threads=2, batch_size=8)
    classes = run.record.network.classes
    replica = Segmenter(lambda _: predictor, classes, settings, placement, Marks.of_run(run))
    [task] = run.missing()
    return replica(Fetch(run.storage, 1 << 20, 2).shard(task))["images"]


def test_a_shard_comes_through_with_the_same_masks(tmp_path: Path) -> None:
    """Decoded in a child, and alone in the network, its images get the masks of the first time."""
    run = start_run(tmp_path, draw_images(tmp_path, 5))
    networks = [RedPredictor() for _ in range(3)]
    first, second, third = (_label(run, network) for network in networks)
    assert first == second == third
    assert [[len(call) for call in network.calls] for network in networks] == [
        [5],
        [5],
        [1, 1, 1, 1, 1],
    ]


def test_the_culprit_is_the_one_that_was_alone(tmp_path: Path) -> None:
    """The fourth death names it, the fifth replica fails it and labels the others."""
    run = start_run(tmp_path, draw_images(tmp_path, 3))
    for number_of_calls in (1, 1, 2, 2):
        killer = _Killer(6)
        with pytest.raises(KeyboardInterrupt):
            _label(run, killer)
        assert len(killer.calls) == number_of_calls
    killer = _Killer(6)
    images = _label(run, killer)
    assert [image["error_code"] for image in images] == [None, "crashed", None]
    assert [image["png"] is None for image in images] == [False, True, False]
    assert killer.calls == [[(5, 7, 3)], [(7, 7, 3)]]


def test_nobody_is_at_risk_beside_one_alone() -> None:
    """Who works alone waits for the others, and they for it."""
    gate, inside, together = Gate(), [], threading.Barrier(3, timeout=30)

    def work(*, alone: bool) -> None:
        if not alone:
            together.wait()
        with gate.alone() if alone else gate.together():
            inside.append(alone)
            if alone:
                assert inside == [True]
            else:
                together.wait()
                assert inside == [False, False, False]
                together.wait()
            inside.remove(alone)

    for _ in range(3):
        threads = [threading.Thread(target=work, kwargs={"alone": one}) for one in (True, False)]
        threads += [threading.Thread(target=work, kwargs={"alone": False}) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not inside
        assert not any(thread.is_alive() for thread in threads)


def test_larger_pictures_and_more_views_have_more_time() -> None:
    """The network's limit grows with what it has to do; small pictures have their least."""
    plain = Limits.of_settings(make_settings(Path("unused"), "in", max_image_s=10), use_gpu=False)
    views = make_settings(Path("unused"), "in", max_image_s=10, flip=True, scales=(0.5, 1.0))
    small, large = (np.zeros((side, side, 3), np.uint8) for side in (10, 2000))
    assert plain.network_s([large]) == 10 + 40
    assert plain.network_s([small, small]) == 10 + 2
    assert Limits.of_settings(views, use_gpu=False).network_s([large]) == 10 + 4 * 40
    on_gpu = Limits.of_settings(views, use_gpu=True)
    assert on_gpu.network_s([large]) > 60 + 10 + 4 * 40
    compiled = make_settings(Path("unused"), "in", max_image_s=10, compiled=True)
    limits = Limits.of_settings(compiled, use_gpu=False)
    assert limits.network_s([large, small, small]) > limits.network_s([large, large, large]) + 60
