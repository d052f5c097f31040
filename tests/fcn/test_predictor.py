"""The replica's core: masks in order, exact counts, confidences, and too little memory."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from fcn.checkpoint import Checkpoint, numbered_classes
from fcn.predictor import Prediction, Predictor
from fcn.weights import random_network
from tests.disk_runs import random_pixels

_NUM_CLASSES = 5
_RECORD = Checkpoint("fcn_all_skips", numbered_classes(_NUM_CLASSES), width=4)
_SIZES = [(8, 9), (5, 7), (8, 9), (1, 1), (5, 7), (8, 9), (40, 33), (8, 9)]


def _images(*sizes: tuple[int, int]) -> list[NDArray[np.uint8]]:
    return [random_pixels(seed, *size, 3) for seed, size in enumerate(sizes or _SIZES)]


class _PerPixel(nn.Module):
    """Scores every pixel by its own colour; keeps the scores and the batches it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Conv2d(3, _NUM_CLASSES, 1)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.seen: list[torch.Tensor] = []

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:  # noqa: N803 - as in fcn
        self.seen.append(self.score(images_NCHW))
        return self.seen[-1]


def _predict(
    network: nn.Module, images: list[NDArray[np.uint8]], **fields: Any
) -> list[Prediction]:
    predictions = Predictor(network, _RECORD, **fields).predict(images)
    assert all(one is not None for one in predictions)
    return [one for one in predictions if one is not None]


def _bytes(predictions: list[Prediction]) -> list[tuple[bytes, bytes, bytes, float]]:
    return [
        (
            one.mask.tobytes(),
            one.class_pixels.tobytes(),
            one.class_confidence.tobytes(),
            one.mean_confidence,
        )
        for one in predictions
    ]


def _assert_agree(predictions: list[Prediction], others: list[Prediction]) -> None:
    """Compare predictions of a per-pixel network made in batches of different sizes."""
    for one, other in zip(predictions, others, strict=True):
        assert one.mask.tolist() == other.mask.tolist()
        assert one.class_pixels.tolist() == other.class_pixels.tolist()
        # A convolution sums in another order when a batch has another size.
        np.testing.assert_allclose(one.class_confidence, other.class_confidence, atol=2e-6)
        np.testing.assert_allclose(one.mean_confidence, other.mean_confidence, atol=2e-6)


def test_images_keep_their_order() -> None:
    """Of images of mixed sizes each gets the mask that it gets alone, at its size."""
    images = _images()
    network = random_network(_RECORD, 0)
    together = _predict(network, images, batch_size=3)
    assert [one.mask.shape for one in together] == _SIZES
    for image, found in zip(images, together, strict=True):
        [alone] = _predict(network, [image])
        assert (alone.mask != found.mask).mean() < 0.01


def test_a_mask_is_the_best_class_of_every_pixel() -> None:
    """The mask is the argmax of the scores, as bytes."""
    network = _PerPixel()
    [found] = _predict(network, _images((8, 9)))
    [scores] = network.seen
    assert found.mask.dtype == np.uint8
    assert found.mask.tolist() == scores[0].argmax(0).tolist()
    assert len(set(found.mask.flat)) > 2


def test_counts_are_those_of_the_mask() -> None:
    """The counts equal counting the mask, have every class and sum to the pixels."""
    for found in _predict(random_network(_RECORD, 0), _images()):
        counts = np.bincount(found.mask.ravel(), minlength=_NUM_CLASSES)
        assert found.class_pixels.dtype == np.int64
        assert found.class_pixels.tolist() == counts.tolist()
        assert found.class_pixels.sum() == found.mask.size


def test_confidences_are_the_softmax_of_the_winner() -> None:
    """Confidences are what NumPy computes from the scores: per class, and over all pixels."""
    network = _PerPixel()
    [found] = _predict(network, _images((30, 40)))
    scores = network.seen[0][0].detach().numpy().astype(np.float64)
    softmax = np.exp(scores) / np.exp(scores).sum(0)
    winner = softmax.max(0)
    for index in range(_NUM_CLASSES):
        expected = winner[found.mask == index].mean() if found.class_pixels[index] else np.nan
        np.testing.assert_allclose(found.class_confidence[index], expected, atol=2e-6)
    np.testing.assert_allclose(found.mean_confidence, winner.mean(), atol=2e-6)
    assert found.class_confidence.dtype == np.float64


class _Shifted(_PerPixel):
    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:  # noqa: N803 - as in fcn
        return super().forward(images_NCHW) + 1e4


def test_large_scores_do_not_overflow() -> None:
    """Confidences are finite for scores whose exponential is not."""
    [found] = _predict(_Shifted(), _images((8, 9)))
    assert 0 < found.mean_confidence <= 1


def test_a_class_without_pixels_has_no_confidence() -> None:
    """An absent class has count 0 and confidence NaN; the present one has its own."""
    [found] = _predict(_PerPixel(), _images((1, 1)))
    present = int(found.mask[0, 0])
    assert [index for index in range(_NUM_CLASSES) if found.class_pixels[index]] == [present]
    assert np.flatnonzero(~np.isnan(found.class_confidence)).tolist() == [present]
    assert found.class_confidence[present] == found.mean_confidence


def test_the_same_list_gives_the_same_bytes() -> None:
    """Twice the same images, with the same replica or another, give the same bytes."""
    images = _images()
    network = random_network(_RECORD, 0)
    predictor = Predictor(network, _RECORD, batch_size=3)
    first, again = (predictor.predict(images) for _ in range(2))
    another = _predict(random_network(_RECORD, 0), images, batch_size=3)
    assert _bytes(first) == _bytes(again) == _bytes(another)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_results_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    """Where pixels do not influence each other, every size of batch gives the same masks."""
    expected = _predict(_PerPixel(), _images(), batch_size=8)
    _assert_agree(_predict(_PerPixel(), _images(), batch_size=batch_size), expected)


def test_batches_hold_images_of_one_size() -> None:
    """Same-size images go together, at most `batch_size` of them, without resizing."""
    network = _PerPixel()
    _predict(network, _images(), batch_size=3)
    assert [(len(scores), *scores.shape[2:]) for scores in network.seen] == [
        *((3, 8, 9), (1, 8, 9), (2, 5, 7), (1, 1, 1), (1, 40, 33)),
    ]


def test_no_images_are_no_predictions() -> None:
    """An empty list gives an empty list, without asking the network."""
    network = _PerPixel()
    assert _predict(network, []) == []
    assert network.seen == []


def test_read_only_images_are_taken() -> None:
    """Arrays that can't be written to, as the decoder gives them, are labelled."""
    [image] = _images((8, 9))
    image.flags.writeable = False
    assert len(_predict(_PerPixel(), [image])) == 1


def test_all_255_classes_fit_a_mask() -> None:
    """With the most classes there can be, the last one is in the mask as it is."""

    class Last(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            scores = torch.zeros(len(images), 255, *images.shape[2:])
            scores[:, 254] = 1
            return scores

    record = Checkpoint("fcn_all_skips", numbered_classes(255))
    [found] = Predictor(Last(), record).predict(_images((2, 3)))
    assert found is not None
    assert found.mask.tolist() == [[254] * 3] * 2
    assert found.class_pixels[254] == 6


def test_half_precision_is_used_when_asked_for() -> None:
    """`bf16` runs the network in bfloat16 and `fp32` in float32; results have the same types."""
    masks = []
    for precision, expected in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        network = _PerPixel()
        [found] = _predict(network, _images((30, 40)), precision=precision)
        assert [scores.dtype for scores in network.seen] == [expected]
        assert (found.mask.dtype, found.class_confidence.dtype) == (np.uint8, np.float64)
        masks.append(found.mask)
    assert (masks[0] == masks[1]).mean() > 0.95


def test_the_network_is_evaluated() -> None:
    """The replica puts its network into evaluation mode and keeps no gradients."""
    network = random_network(_RECORD, 0).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    _predict(network, _images())
    assert not network.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_threads_are_set_when_asked_for() -> None:
    """The number of threads of the process is the one that was given."""
    before = torch.get_num_threads()
    try:
        Predictor(_PerPixel(), _RECORD, num_threads=before + 1)
        assert torch.get_num_threads() == before + 1
        Predictor(_PerPixel(), _RECORD)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


# Too little memory


class _Small(_PerPixel):
    """Has memory for some pixels at a time, and says so as one of PyTorch's allocators does."""

    def __init__(self, max_pixels: int, refuse: Callable[[], Exception]) -> None:
        super().__init__()
        self._max_pixels = max_pixels
        self._refuse = refuse
        self.asked: list[int] = []

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:  # noqa: N803 - as in fcn
        self.asked.append(len(images_NCHW))
        if images_NCHW[:, 0].numel() > self._max_pixels:
            raise self._refuse()
        return super().forward(images_NCHW)


_REFUSALS = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 400000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "windows": lambda: RuntimeError("DefaultCPUAllocator: not enough memory: you tried to"),
    "python": MemoryError,
}


@pytest.mark.parametrize("kind", _REFUSALS)
def test_a_batch_that_does_not_fit_is_halved(kind: str) -> None:
    """A batch for which memory is short is tried in halves, and the results are the same."""
    images = _images(*[(8, 9)] * 5)
    network = _Small(2 * 72, _REFUSALS[kind])
    found = _predict(network, images, batch_size=5)
    assert network.asked == [5, 2, 3, 1, 2]
    _assert_agree(found, _predict(_PerPixel(), images))


@pytest.mark.parametrize("kind", _REFUSALS)
def test_an_image_that_does_not_fit_alone_has_no_prediction(kind: str) -> None:
    """The one image that is too large gives None; its neighbours are labelled."""
    images = _images((8, 9), (40, 33), (8, 9), (41, 33))
    found = Predictor(_Small(100, _REFUSALS[kind]), _RECORD).predict(images)
    assert [one is None for one in found] == [False, True, False, True]


def test_an_allocation_that_really_fails_has_no_prediction() -> None:
    """What PyTorch raises when this machine has no memory is understood."""

    class Greedy(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.empty(1 << 60, dtype=torch.uint8)

    assert Predictor(Greedy(), _RECORD).predict(_images((2, 3))) == [None]


def test_another_error_is_not_swallowed() -> None:
    """An error that is not about memory is raised, and nothing is tried again."""
    network = _Small(0, lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        Predictor(network, _RECORD).predict(_images((8, 9), (8, 9)))
    assert network.asked == [2]


_LIMITED = """
import sys
import numpy as np
from fcn.checkpoint import Checkpoint, numbered_classes
from fcn.predictor import Predictor, limit_memory
from fcn.weights import random_network
record = Checkpoint("fcn_all_skips", numbered_classes(3), width=8, weights_sha256="random:0")
predictor = Predictor(random_network(record, 0), record, num_threads=1)
small = np.zeros((64, 64, 3), np.uint8)
predictor.predict([small])
limit_memory(600 << 20)
large, middle = np.zeros((5000, 5000, 3), np.uint8), np.ones((600, 600, 3), np.uint8)
found = predictor.predict([large, small, *[middle] * 8])
print(*("none" if one is None else one.mask.size for one in found))
"""


def test_an_image_beyond_the_memory_limit_costs_itself_only() -> None:
    """Under a real limit the image that does not fit is None, and large batches are halved."""
    found = subprocess.run(
        [sys.executable, "-c", _LIMITED], capture_output=True, text=True, check=True, timeout=120
    )
    assert found.stdout.split() == ["none", "4096", *["360000"] * 8]
