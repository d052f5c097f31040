"""`torch.compile`: one graph per size of pictures, and a refusal where it does not work."""

import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fcn.geometry import Geometry
from fcn.inference import DeviceError
from fcn.inference.compiler import try_compiler
from fcn.inference.predictor import Predictor
from fcn.interpolation import Window
from fcn.models.network import Network
from fcn.weights.classes import numbered_classes
from fcn.weights.record import Checkpoint
from tests.disk_runs import random_pixels

_RECORD = Checkpoint("fcn_all_skips", numbered_classes(3), width=2)


class _Narrow(Network):
    """A network that is traced at once: of two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.describe([], Geometry())
        torch.manual_seed(0)
        self.hidden, self.classifier = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 1)

    def score(self, images_NCHW: torch.Tensor, window: Window | None) -> torch.Tensor:  # noqa: N803 - as in fcn
        return self.classifier(self.hidden(images_NCHW).relu())


def _predictor(*, compiled: bool) -> Predictor:
    return Predictor(_Narrow(), _RECORD, batch_size=4, compiled=compiled)


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """The shapes of the pictures of each graph; PyTorch's own operations stand for the compiler."""
    found: list[tuple[int, ...]] = []

    def backend(graph: Any, inputs: list[Any]) -> Callable[..., Any]:
        pictures = [one.shape for one in inputs if one.ndim == 4 and one.shape[2] > 3]
        found.extend(tuple(shape) for shape in pictures)
        run: Callable[..., Any] = graph.forward
        return run

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    monkeypatch.setattr("fcn.inference.compiler.try_compiler", lambda _: None)
    yield found
    torch._dynamo.reset()


def _images(numbers: list[int]) -> list[np.ndarray]:
    sizes = [(32 + side, 40) for side, number in enumerate(numbers) for _ in range(number)]
    return [random_pixels(seed, *size, 3) for seed, size in enumerate(sizes)]


def test_each_size_is_one_graph(
    shapes: list[tuple[int, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    """Ten sizes with any numbers of images are ten graphs: none is left out, none made twice."""
    images = _images([5, 1, 4, 2, 3, 1, 1, 1, 1, 1])
    predictor = _predictor(compiled=True)
    with caplog.at_level(logging.WARNING):
        first = predictor.predict(images)
    again = predictor.predict(images)
    assert sorted(shapes) == [(4, 3, 32 + side, 40) for side in range(10)]
    assert "the 9th size" in caplog.text
    plain = _predictor(compiled=False).predict(images)
    for image, *found in zip(images, first, again, plain, strict=True):
        masks = [one.mask for one in found if one is not None]
        assert [mask.shape for mask in masks] == [image.shape[:2]] * 3
        assert np.array_equal(masks[0], masks[1])
        assert (masks[0] != masks[2]).mean() < 0.01


def test_a_compiled_network_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.compile` changes the speed, and the classes at most where two are as good as equal."""
    # The cache of a user is used by other processes, too, and a kill may leave half a file there.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    picture = random_pixels(0, 64, 64, 3)
    [plain], [compiled] = (_predictor(compiled=one).predict([picture]) for one in (False, True))
    assert plain is not None
    assert compiled is not None
    assert (plain.mask != compiled.mask).mean() < 1e-3
    assert plain.mean_confidence == pytest.approx(compiled.mean_confidence, abs=1e-4)
    assert list(tmp_path.rglob("*.so"))


def test_masks_do_not_depend_on_the_order_of_sizes(shapes: list[tuple[int, ...]]) -> None:
    """A replica that has met other sizes and numbers before labels a picture to the same bytes."""
    picture = random_pixels(7, 33, 40, 3)
    [alone] = _predictor(compiled=True).predict([picture])
    experienced = _predictor(compiled=True)
    experienced.predict(_images([2, 3, 1, 1, 1, 1, 1, 1, 1, 1]))
    [found] = experienced.predict([picture])
    assert alone is not None
    assert found is not None
    assert np.array_equal(alone.mask, found.mask)
    assert alone.mean_confidence == found.mean_confidence
    assert len(set(shapes)) == 10


def test_a_machine_without_a_compiler_is_refused() -> None:
    """Before any picture is seen, the message says what is missing, and the remedy."""
    from torch._inductor import config  # noqa: PLC0415 - seconds

    with (
        config.patch({"cpp.cxx": (None, "no-such-compiler")}),
        pytest.raises(DeviceError, match=r"(?s)does not work here: .*C\+\+ compiler.*leave"),
    ):
        try_compiler(torch.device("cpu"))
