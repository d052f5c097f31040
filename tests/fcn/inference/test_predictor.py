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

from fcn.geometry import Geometry
from fcn.inference.labeller import Launched
from fcn.inference.memory import MemoryEstimate
from fcn.inference.predictor import Prediction, Predictor
from fcn.inference.preprocess import Preprocess
from fcn.interpolation import Window
from fcn.models import NETWORKS, build
from fcn.models.network import Network
from fcn.weights.classes import numbered_classes
from fcn.weights.files import random_network
from fcn.weights.record import Checkpoint
from tests.disk_runs import random_pixels

_NUM_CLASSES = 5
_RECORD = Checkpoint("fcn_all_skips", numbered_classes(_NUM_CLASSES), width=4)
_SIZES = [(8, 9), (5, 7), (8, 9), (1, 1), (5, 7), (8, 9), (40, 33), (8, 9)]


def _images(*sizes: tuple[int, int]) -> list[NDArray[np.uint8]]:
    return [random_pixels(seed, *size, 3) for seed, size in enumerate(sizes or _SIZES)]


class _PixelNetwork(Network):
    """A network whose scores depend on single pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.describe([], Geometry())


class _PerPixel(_PixelNetwork):
    """Scores every pixel by its own colour; keeps the scores and the batches it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(3, _NUM_CLASSES, 1)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.seen: list[torch.Tensor] = []

    def score(self, images_NCHW: torch.Tensor, window: Window | None) -> torch.Tensor:  # noqa: N803 - as in fcn
        self.seen.append(self.classifier(images_NCHW))
        return self.seen[-1]


def _predict(network: Network, images: list[NDArray[np.uint8]], **fields: Any) -> list[Prediction]:
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

    class Last(_PixelNetwork):
        def score(self, images: torch.Tensor, window: Window | None) -> torch.Tensor:
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

    def score(self, images_NCHW: torch.Tensor, window: Window | None) -> torch.Tensor:  # noqa: N803 - as in fcn
        self.asked.append(len(images_NCHW))
        if images_NCHW[:, 0].numel() > self._max_pixels:
            raise self._refuse()
        return super().score(images_NCHW, window)


_REFUSALS = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 400000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "windows": lambda: RuntimeError("DefaultCPUAllocator: not enough memory: you tried to"),
    "python": MemoryError,
    "cudnn": lambda: RuntimeError(
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"
    ),
    "cudnn on the host": lambda: RuntimeError(
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"
    ),
    "cublas": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublas`"),
    "cublas's handle": lambda: RuntimeError(
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"
    ),
    "triton": lambda: RuntimeError("Triton Error [CUDA]: out of memory"),
    "driver": lambda: RuntimeError("CUDA driver error: out of memory"),
    "no workspace": lambda: RuntimeError(
        "GET was unable to find an engine to execute this computation"
    ),
}
# They may be another error of the smallest piece.
_PERHAPS = {"no workspace", "cublas's handle"}


@pytest.mark.parametrize("kind", _REFUSALS)
def test_a_batch_that_does_not_fit_is_halved(kind: str) -> None:
    """A batch for which memory is short is tried in halves, and the results are the same."""
    images = _images(*[(8, 9)] * 5)
    network = _Small(2 * 72, _REFUSALS[kind])
    found = _predict(network, images, batch_size=5)
    assert network.asked == [5, 2, 3, 1, 2]
    _assert_agree(found, _predict(_PerPixel(), images))


def test_what_did_not_fit_is_not_tried_with_the_next_batch() -> None:
    """A batch that was too large before is cut at once, to the same parts; others are tried."""
    images = _images(*[(8, 9)] * 5)
    network = _Small(2 * 72, MemoryError)
    predictor = Predictor(network, _RECORD, batch_size=5)
    first = predictor.predict(images)
    network.asked.clear()
    again = predictor.predict(images)
    assert network.asked == [2, 1, 2]
    assert _bytes([one for one in first if one]) == _bytes([one for one in again if one])
    assert predictor.num_backoffs == 2
    network.asked.clear()
    predictor.predict(images[:4])
    assert network.asked == [4, 2, 2]


def test_tiles_that_did_not_fit_are_not_tried_with_the_next_picture() -> None:
    """Of a second picture of the size only the tiles that fit are labelled."""
    network = _Small(300 * 300, MemoryError)
    predictor = Predictor(network, _RECORD)
    predictor.predict([_picture(700, 900)])
    network.asked.clear()
    predictor.predict([_picture(700, 900)])
    assert len(network.asked) == 3 * 4


def test_the_smallest_piece_is_always_tried() -> None:
    """An image that had no room gets its mask once there is room: it fails by what is true now."""
    network = _Small(0, MemoryError)
    predictor = Predictor(network, _RECORD)
    [image] = _images((8, 9))
    assert predictor.predict([image]) == [None]
    network._max_pixels = 1000
    assert predictor.predict([image]) != [None]


@pytest.mark.parametrize("size", [(8, 9), (100, 70)])
def test_an_engine_that_is_not_there_for_the_smallest_piece_is_an_error(
    size: tuple[int, int],
) -> None:
    """What cuDNN says of short memory, and of what it can't do, is raised in the end."""
    network = _Small(0, _REFUSALS["no workspace"])
    with pytest.raises(RuntimeError, match="unable to find an engine"):
        Predictor(network, _RECORD).predict(_images(size))
    assert len(network.asked) == (1 if size == (8, 9) else 2)


def test_a_batch_is_read_after_the_next_one_is_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU has work while the CPU reads: launch, launch, read, launch, read, read."""
    done: list[str] = []
    network = _PerPixel()
    score, read = network.score, Launched.read

    def scored(images: torch.Tensor, window: Window | None) -> torch.Tensor:
        done.append("launch")
        return score(images, window)

    def been_read(launched: Launched) -> Any:
        done.append("read")
        return read(launched)

    monkeypatch.setattr(network, "score", scored)
    monkeypatch.setattr(Launched, "read", been_read)
    _predict(network, _images(*[(8, 9)] * 3), batch_size=1)
    assert done == ["launch", "launch", "read", "launch", "read", "read"]


@pytest.mark.parametrize("kind", sorted(_REFUSALS.keys() - _PERHAPS))
def test_an_image_that_does_not_fit_alone_has_no_prediction(kind: str) -> None:
    """The one image that is too large gives None; its neighbours are labelled."""
    images = _images((8, 9), (40, 33), (8, 9), (41, 33))
    found = Predictor(_Small(100, _REFUSALS[kind]), _RECORD).predict(images)
    assert [one is None for one in found] == [False, True, False, True]


def test_an_allocation_that_really_fails_has_no_prediction() -> None:
    """What PyTorch raises when this machine has no memory is understood."""

    class Greedy(_PixelNetwork):
        def score(self, images: torch.Tensor, window: Window | None) -> torch.Tensor:
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
from fcn.weights.classes import numbered_classes
from fcn.weights.record import Checkpoint
from pipeline.memory import limit_memory
from fcn.inference.predictor import Predictor
from fcn.weights.files import random_network
record = Checkpoint("fcn_all_skips", numbered_classes(3), width=8, weights_sha256="random:0")
predictor = Predictor(
    random_network(record, 0), record, num_threads=1, memory_bytes=600 << 20
)
small = np.zeros((64, 64, 3), np.uint8)
predictor.predict([small])
limit_memory(600 << 20)
large, middle = np.zeros((5000, 5000, 3), np.uint8), np.ones((600, 600, 3), np.uint8)
found = predictor.predict([large, small, *[middle] * 8])
print(*("none" if one is None else one.mask.size for one in found))
"""


def test_an_image_beyond_the_memory_limit_is_labelled_in_tiles() -> None:
    """Under a real limit what does not fit is labelled in tiles and in smaller batches."""
    found = subprocess.run(
        [sys.executable, "-c", _LIMITED], capture_output=True, text=True, check=True, timeout=120
    )
    assert found.stdout.split() == ["25000000", "4096", *["360000"] * 8]


_BARE = """
import numpy as np
from fcn.weights.classes import numbered_classes
from fcn.weights.record import Checkpoint
from pipeline.memory import limit_memory
from fcn.inference.predictor import Predictor
from fcn.weights.files import random_network
record = Checkpoint("fcn_all_skips", numbered_classes(3), width=8, weights_sha256="random:0")
network = random_network(record, 0)
small = np.zeros((64, 64, 3), np.uint8)
predictor = Predictor(network, record, num_threads=1, memory_bytes={limit} << 20, scales={scales})
predictor.predict([small])
pictures = [np.zeros((side, side, 3), np.uint8) for side in {sides}]
limit_memory({limit} << 20)
found = predictor.predict([*pictures, small])
print(*("none" if one is None else one.mask.size for one in found))
"""


@pytest.mark.parametrize(
    ("limit", "sides", "scales", "expected"),
    [
        # The picture's mask alone is more than there is.
        (60, [10000], (1.0,), ["none", "4096"]),
        (500, [2500], (1.0,), ["6250000", "4096"]),
        (500, [400], (1.0, 4.0), ["160000", "4096"]),
        (300, [500] * 16, (1.0,), ["250000"] * 16 + ["4096"]),
    ],
)
def test_memory_is_estimated_with_pictures_batches_and_views(
    limit: int, sides: list[int], scales: tuple[float, ...], expected: list[str]
) -> None:
    """Under a real limit nothing crashes: a batch, tile or view that would not fit is not tried."""
    code = _BARE.format(limit=limit, sides=sides, scales=scales)
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=200
    )
    assert (found.returncode, found.stdout.split()) == (0, expected), found.stderr


@pytest.mark.parametrize("name", NETWORKS)
def test_the_estimate_grows_with_what_is_asked(name: str) -> None:
    """More images, larger ones and larger scales need more, and each network says how much."""
    with torch.device("meta"):
        network = build(name, 5)
    estimate, enlarged = (MemoryEstimate(network, 3, 5, scales) for scales in ((1.0,), (1.0, 2.0)))
    numbers = [
        estimate.num_bytes(1, 64, 64),
        estimate.num_bytes(1, 200, 200),
        estimate.num_bytes(4, 200, 200),
        enlarged.num_bytes(4, 200, 200),
    ]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3)),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_image_is_refused(image: NDArray[Any]) -> None:
    """Another dtype or shape is an error that says which of the images and what it is."""
    with pytest.raises(ValueError, match=r"images\[1\] is .* of shape .*; it has to be uint8"):
        Predictor(_PerPixel(), _RECORD).predict([*_images((8, 9)), image])


def test_scores_beyond_the_precision_are_an_error() -> None:
    """A network whose numbers overflow says so instead of labelling everything as class 0."""
    network = _PerPixel()
    with torch.no_grad():
        network.classifier.weight.mul_(1e5)
    with pytest.raises(FloatingPointError, match=r"not finite.*use precision bf16 or fp32"):
        Predictor(network, _RECORD, precision="fp16").predict(_images((8, 9)))


def test_normalisation_does_not_overflow_in_fp16() -> None:
    """FCN-AlexNet on raw pixels says in fp16 what it says in fp32, but for near ties."""
    record = Checkpoint(
        "fcn32s_alexnet",
        numbered_classes(4),
        padding="tight",
        mean=(0.4, 0.45, 0.48),
        std=(1 / 255,) * 3,
        weights_sha256="random:0",
    )
    network = random_network(record, 0)
    picture = _picture(120, 150)
    masks = [
        one.mask
        for precision in ("fp32", "fp16")
        for one in Predictor(network, record, precision=precision).predict([picture])
        if one is not None
    ]
    assert (masks[0] == masks[1]).mean() > 0.99


# Tiles


def _picture(height: int, width: int) -> NDArray[np.uint8]:
    """Draw a picture with large and small structure, so that scores differ all over it."""
    coarse = random_pixels(0, height // 16 + 1, width // 16 + 1, 3)
    enlarged = coarse.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
    return (enlarged // 2 + random_pixels(1, height, width, 3) // 2).astype(np.uint8)


def _both(
    network: Network, picture: NDArray[np.uint8], **fields: Any
) -> tuple[Prediction, Prediction]:
    """Label a picture whole and in tiles of 256 pixels."""
    found = []
    for max_whole_pixels, sides in ((1 << 30, ()), (1, (256,))):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("fcn.inference.predictor._TILE_SIDES", sides)
            predictor = Predictor(network, _RECORD, max_whole_pixels=max_whole_pixels, **fields)
            found += predictor.predict([picture], with_scores=True, with_confidence=True)
    whole, tiled = found
    assert whole is not None
    assert tiled is not None
    return whole, tiled


@pytest.mark.parametrize(
    "views", [{}, {"flip": True}, {"scales": (0.75, 1.0, 1.5), "flip": True}], ids=str
)
def test_tiles_give_what_the_whole_picture_gives(views: dict[str, Any]) -> None:
    """At a size that divides by nothing, tiles have the whole's scores, classes and counts."""
    whole, tiled = _both(random_network(_RECORD, 0), _picture(613, 571), **views)
    assert whole.scores is not None
    np.testing.assert_allclose(tiled.scores, whole.scores, atol=1e-4 * abs(whole.scores).max())
    assert np.unique(whole.mask).size > 1
    # Where two classes are as good as equal, rounding may decide.
    assert (tiled.mask != whole.mask).mean() < 1e-5
    assert (
        abs(tiled.class_pixels - whole.class_pixels).sum() <= 2 * (tiled.mask != whole.mask).sum()
    )
    assert tiled.class_pixels.tolist() == np.bincount(tiled.mask.flat, minlength=5).tolist()
    assert tiled.mean_confidence == pytest.approx(whole.mean_confidence, abs=1e-6)
    assert tiled.confidence is not None
    assert whole.confidence is not None
    assert abs(tiled.confidence.astype(int) - whole.confidence).max() <= 1


def test_smaller_tiles_are_tried_until_they_fit() -> None:
    """A picture goes in tiles of half the side as long as memory is short, with one result."""
    network = _Small(300 * 300, MemoryError)
    picture = _picture(700, 900)
    found = _predict(network, [picture])
    _assert_agree(found, _predict(_PerPixel(), [picture]))
    # The whole, one tile of 512, then twelve of 256: each with a pixel of margin.
    assert len(network.asked) == 2 + 3 * 4


def test_a_picture_above_the_limit_is_not_tried_whole() -> None:
    """`max_whole_pixels` decides without running into the wall first."""
    network = _PerPixel()
    _predict(network, [_picture(300, 300)], max_whole_pixels=300 * 300)
    assert [tuple(scores.shape[2:]) for scores in network.seen] == [(300, 300)]
    network.seen.clear()
    _predict(network, [_picture(300, 300)], max_whole_pixels=300 * 300 - 1)
    assert [tuple(scores.shape[2:]) for scores in network.seen] == [
        *((257, 257), (257, 45), (45, 257), (45, 45)),
    ]


# What can be asked for


def test_scores_are_those_of_the_network() -> None:
    """On demand the score maps come along, in float32; otherwise they do not."""
    network = _PerPixel()
    [found] = Predictor(network, _RECORD).predict(_images((8, 9)), with_scores=True)
    assert found is not None
    assert found.scores is not None
    assert (found.scores.dtype, found.confidence) == (np.float32, None)
    assert (found.scores == network.seen[0][0].numpy()).all()
    assert (found.scores.argmax(0) == found.mask).all()


def test_the_confidence_map_is_the_confidence_in_bytes() -> None:
    """On demand every pixel has its confidence as a byte, and their mean is the image's."""
    [found] = Predictor(_PerPixel(), _RECORD).predict(_images((40, 33)), with_confidence=True)
    assert found is not None
    assert found.confidence is not None
    assert (found.confidence.dtype, found.scores) == (np.uint8, None)
    assert found.confidence.shape == found.mask.shape
    assert found.confidence.mean() / 255 == pytest.approx(found.mean_confidence, abs=1 / 255)


def test_a_flipped_view_makes_mirrored_pictures_agree() -> None:
    """With the flip, a picture and its mirror image get masks that mirror each other."""
    network = random_network(_RECORD, 0)
    picture = _picture(96, 128)
    mirrored = np.ascontiguousarray(picture[:, ::-1])
    without, with_flip = (
        [one.mask for one in _predict(network, [picture, mirrored], flip=flip, batch_size=1)]
        for flip in (False, True)
    )
    assert (without[0] != without[1][:, ::-1]).any()
    assert (with_flip[0] == with_flip[1][:, ::-1]).mean() > 0.9999


def test_views_are_averaged_as_softmax() -> None:
    """Scales give the mean of the softmax values of the resized pictures, resized back."""
    network = random_network(_RECORD, 0)
    picture = _picture(90, 70)
    images = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    expected = torch.zeros(1, _NUM_CLASSES, 90, 70)
    for scale in (0.5, 1.0, 2.0):
        size = (round(90 * scale), round(70 * scale))
        resized = nn.functional.interpolate(images, size, mode="bilinear")
        with torch.no_grad():
            scores = network(Preprocess(_RECORD)(resized.permute(0, 2, 3, 1)))
        scores = nn.functional.interpolate(scores, (90, 70), mode="bilinear")
        expected += scores.softmax(1) / 3
    predictor = Predictor(network, _RECORD, scales=(0.5, 1.0, 2.0))
    [found] = predictor.predict([picture], with_scores=True)
    assert found is not None
    np.testing.assert_allclose(np.exp(found.scores), expected[0].numpy(), atol=1e-5)


@pytest.mark.parametrize("max_whole_pixels", [1 << 20, 1000])
def test_what_the_network_is_unsure_of_is_ignored(max_whole_pixels: int) -> None:
    """Below the limit a pixel is 255 and of no class, whole or in tiles; all else stays."""
    images = _images((150, 130), (8, 9))
    kept, found = (
        Predictor(
            _PerPixel(), _RECORD, ignore_below=below, max_whole_pixels=max_whole_pixels
        ).predict(images, with_confidence=True)
        for below in (0.0, 0.7)
    )
    for plain, one in zip(kept, found, strict=True):
        assert plain is not None
        assert one is not None
        unsure = one.mask == 255
        # The confidences are rounded to 1/255.
        assert plain.confidence[unsure].max() <= round(255 * 0.7)
        assert plain.confidence[~unsure].min() >= round(255 * 0.7)
        assert np.array_equal(one.mask[~unsure], plain.mask[~unsure])
        assert one.ignored_pixels == unsure.sum() > 0
        assert np.array_equal(one.class_pixels, np.bincount(plain.mask[~unsure], minlength=5))
        assert one.class_pixels.sum() + one.ignored_pixels == one.mask.size
        assert one.mean_confidence == plain.mean_confidence
        assert 0 < one.ignored_confidence < 0.7
