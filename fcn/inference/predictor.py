"""One replica: uint8 images in, class indices and exact counts out.

Same-size images go through the network together; nothing is resized to fit. Argmax and counting
happen on the device, so that one byte per pixel comes back. What does not fit into memory goes in
smaller batches, then in tiles, whose scores are those of the whole picture.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fcn.inference.batches import Batching
from fcn.inference.budget import Budget
from fcn.inference.compiler import CompiledNetwork, try_compiler
from fcn.inference.device import loading_onto, open_device, working_on
from fcn.inference.device_time import DeviceTime
from fcn.inference.labeller import Labeller, Launched, Prediction
from fcn.inference.lowered import lower
from fcn.inference.memory import if_it_fits
from fcn.inference.preprocess import Preprocess
from fcn.inference.refusals import Part
from fcn.inference.scorer import Scorer, View, make_views
from fcn.inference.uploads import Uploader
from fcn.models.network import Network
from fcn.weights.record import Checkpoint

# Sides of tiles, tried in turn until one fits in memory.
_TILE_SIDES = (2048, 1024, 512, 256, 128, 64)

__all__ = ["Prediction", "Predictor"]

_NUM_AXES = 3

_Found = TypeVar("_Found")

_DTYPES = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


class Predictor:
    """A network on its device.

    The same list of images gives the same bytes on the same machine.
    """

    def __init__(  # noqa: PLR0913 - keyword-only, one per thing that a replica can choose
        self,
        network: Network,
        record: Checkpoint,
        *,
        device: str = "cpu",
        precision: str = "fp32",
        batch_size: int = 8,
        num_threads: int | None = None,
        max_whole_pixels: int = 16 << 20,
        memory_bytes: int | None = None,
        flip: bool = False,
        scales: Sequence[float] = (1.0,),
        compiled: bool = False,
        memory_share: float | None = None,
        ignore_below: float = 0.0,
    ) -> None:
        """Move the network to the device.

        Args:
            network: One of `fcn.models`, with its weights.
            record: The checkpoint record of its weights.
            device: As PyTorch names it.
            precision: `fp32`, or `bf16` or `fp16` where the device has matrix units for it; `tf32`
                is fp32 whose products are rounded to 10 bits on GPUs that can, process-wide.
            batch_size: Images of one size that go through the network together, at most.
            num_threads: CPU threads of the network, for the whole process; None leaves
                PyTorch's choice.
            max_whole_pixels: Images of more pixels go through the network in tiles from the start.
            memory_bytes: What the process may take for images, for CPUs: batches and tiles are
                cut so that they fit by estimate (`fcn.inference.memory`). None tries until memory
                is short.
            flip: Whether the mirrored image is scored too and the mean of both softmaxes taken.
            scales: Factors of height and width at which the image is scored, on top of the
                record's `image_scale`, likewise.
            compiled: Whether whole images go through `torch.compile`, which compiles each size
                anew. Batches are filled up, so that the number of images does not count.
            memory_share: Of a GPU's memory, what PyTorch may take in this process, 0 to 1; None
                leaves the share that the process has.
            ignore_below: Pixels of a lower confidence are 255 in the mask and of no class; 0
                ignores none.

        Raises:
            DeviceError: The device does not answer or has no room for the network, or no compiler
                works where `compiled` is asked for.
        """
        _set_process(precision, num_threads)
        self._device = open_device(device, memory_share)
        seen_at = [scale * record.image_scale for scale in scales]
        views = make_views(seen_at, flip=flip)
        prepared = Preprocess(record).to(self._device), views, _DTYPES[precision]
        with working_on(self._device):
            self._scorer = _make_scorer(network, self._device, *prepared, compiled=compiled)
        self._record = record
        self._ignore_below = ignore_below
        filled = max_whole_pixels if compiled else 0
        even = self._device.type == "cuda"
        self._batching = Batching(batch_size, even=even, max_filled_pixels=filled)
        self._max_whole_pixels = max_whole_pixels
        self._budget = Budget(network, record, seen_at, memory_bytes)
        self._margin = network.margin
        self._uploader = Uploader(self._device)
        self._device_time = DeviceTime(self._device)
        self._num_images = 0

    @property
    def num_images(self) -> int:
        """How many images have been labelled so far, also of a call that is under way."""
        return self._num_images

    @property
    def num_backoffs(self) -> int:
        """How often memory was too short, so that a smaller batch or tile was tried."""
        return self._budget.num_refusals

    @property
    def device_seconds(self) -> float:
        """How long the device has worked on masks so far; see `DeviceTime`."""
        return self._device_time.seconds()

    def predict(
        self,
        images: Sequence[NDArray[np.uint8]],
        *,
        with_scores: bool = False,
        with_confidence: bool = False,
    ) -> list[Prediction | None]:
        """Label images of any sizes.

        Args:
            images: RGB, uint8 of shape (H, W, 3) each.
            with_scores: Whether to give the score maps: 4 bytes per pixel and class.
            with_confidence: Whether to give the confidence of every pixel.

        Returns:
            In the order of the images; None for one that needs more memory than there is, however
            small its tiles.

        Raises:
            ValueError: An image has another dtype or shape.
            FloatingPointError: Scores are not finite: the precision is too small for them.
        """
        for index, image in enumerate(images):
            _check(index, image, self._record.in_channels)
        predictions: list[Prediction | None] = [None] * len(images)
        labeller = Labeller(
            self._scorer,
            self._record.num_classes,
            with_scores=with_scores,
            with_confidence=with_confidence,
            ignore_below=self._ignore_below,
        )
        with working_on(self._device):
            for index, prediction in self._predictions(labeller, images):
                predictions[index] = prediction
                self._num_images += 1
        return predictions

    def _predictions(
        self, labeller: Labeller, images: Sequence[NDArray[np.uint8]]
    ) -> Iterator[tuple[int, Prediction | None]]:
        """Label images, batch by batch; yields each with its index."""
        batches = list(self._batching.share_out(images))
        uploads = self._uploader.upload(
            [self._batching.filled([images[index] for index in batch]) for batch in batches]
        )
        parts = (
            (indices, launched)
            for batch, on_device in zip(batches, uploads, strict=True)
            for indices, part in self._parts(images, batch, on_device)
            for indices, launched in self._launch(labeller, indices, part)
        )
        for indices, found in _read_behind(parts):
            # What a batch was filled with has no index.
            yield from zip(indices, found, strict=False)

    def _parts(
        self,
        images: Sequence[NDArray[np.uint8]],
        batch: Sequence[int],
        on_device: torch.Tensor | None,
    ) -> Iterator[tuple[Sequence[int], torch.Tensor]]:
        """Yield a batch, or its images one by one if together they were too large to upload."""
        if on_device is not None:
            yield batch, on_device
            return
        alone = self._uploader.upload([[images[index]] for index in batch])
        for index, one in zip(batch, alone, strict=True):
            if one is not None:
                yield [index], one

    def _launch(
        self, labeller: Labeller, indices: Sequence[int], images_NHWC: torch.Tensor
    ) -> Iterator[tuple[Sequence[int], Launched | Prediction | None]]:
        """Begin to label pictures of one size, in as few parts as memory admits.

        Args:
            labeller: That labels them.
            indices: Of the pictures; of what a batch was filled with, behind them, there is none.
            images_NHWC: On the device.
        """
        number, height, width, _ = images_NHWC.shape
        if not indices:
            return
        if height * width > self._max_whole_pixels:
            for index, image_HWC in zip(indices, images_NHWC, strict=False):
                yield [index], self._predict_tiled(labeller, image_HWC)
            return
        part, smallest = (number, height, width), number == 1 and not _sides(height, width)
        scores = labeller.with_scores
        if self._budget.fits(part, number * height * width, with_scores=scores, smallest=smallest):
            launched = self._attempt(part, labeller.launch_whole, images_NHWC, smallest=smallest)
            if launched is not None:
                yield indices, launched
                return
        if number == 1:
            yield indices, self._predict_tiled(labeller, images_NHWC[0])
            return
        half = number // 2
        yield from self._launch(labeller, indices[:half], images_NHWC[:half])
        yield from self._launch(labeller, indices[half:], images_NHWC[half:])

    def _predict_tiled(self, labeller: Labeller, image_HWC: torch.Tensor) -> Prediction | None:
        height, width = image_HWC.shape[:2]
        sides = _sides(height, width)
        for side in sides:
            rows, columns = (min(size, side + 2 * self._margin) for size in (height, width))
            part, smallest = (1, rows, columns), side == sides[-1]
            scores = labeller.with_scores
            if self._budget.fits(part, height * width, with_scores=scores, smallest=smallest):
                label = labeller.label_tiled
                found = self._attempt(part, label, image_HWC, side, smallest=smallest)
                if found is not None:
                    return found
        return None

    def _attempt(
        self, part: Part, work: Callable[..., _Found], *arguments: object, smallest: bool
    ) -> _Found | None:
        """Do some work for a part, and remember if there is no memory for it."""
        with self._device_time.measure():
            found = if_it_fits(work, *arguments, smallest=smallest)
        if found is None:
            self._budget.refuse(part)
        return found


def _set_process(precision: str, num_threads: int | None) -> None:
    """Make the choices of PyTorch that are those of a whole process."""
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    # TensorFloat-32, cuDNN's default, is not the fp32 that the fingerprint says.
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    # Some of cuDNN's transposed convolutions add up in any order.
    torch.backends.cudnn.deterministic = True


def _load(network: Network, device: torch.device, dtype: torch.dtype) -> Network:
    """Bring a network to its device, in the form that is fast there."""
    with loading_onto(device):
        if device.type == "cuda":
            return lower(network, device, dtype)
        return network.eval().to(device).to(memory_format=torch.channels_last)


def _make_scorer(  # noqa: PLR0913 - what a predictor has made
    network: Network,
    device: torch.device,
    preprocess: Preprocess,
    views: Sequence[View],
    dtype: torch.dtype,
    *,
    compiled: bool,
) -> Scorer:
    """Bring a network to its device and wrap what turns pictures into scores around it."""
    loaded = _load(network, device, dtype)
    return Scorer(
        loaded,
        preprocess,
        views,
        dtype=dtype,
        autocast=device.type != "cuda" and dtype is not torch.float32,
        whole=_compile(loaded, device) if compiled else None,
    )


def _compile(network: Network, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    try_compiler(device)
    return CompiledNetwork(network)


def _read_behind(
    parts: Iterable[tuple[Sequence[int], Launched | Prediction | None]],
) -> Iterator[tuple[Sequence[int], Sequence[Prediction | None]]]:
    """Read each part after the next one is launched, so that a GPU never waits for the CPU."""
    waiting: tuple[Sequence[int], Launched] | None = None
    for indices, found in parts:
        if waiting is not None:
            yield waiting[0], [labels.prediction() for labels in waiting[1].read()]
        waiting = (indices, found) if isinstance(found, Launched) else None
        if not isinstance(found, Launched):
            yield indices, [found]
    if waiting is not None:
        yield waiting[0], [labels.prediction() for labels in waiting[1].read()]


def _sides(height: int, width: int) -> list[int]:
    """Return the sides of the tiles that an image may be cut into."""
    return [side for side in _TILE_SIDES if side < max(height, width)]


def _check(index: int, image: NDArray[np.uint8], in_channels: int) -> None:
    is_picture = image.ndim == _NUM_AXES and image.shape[2] == in_channels and 0 not in image.shape
    if image.dtype != np.uint8 or not is_picture:
        raise ValueError(
            f"images[{index}] is {image.dtype} of shape {image.shape}; it has to be uint8, 0 to "
            f"255, of shape (height, width, {in_channels})"
        )
