"""Segment: encoded bytes -> decode -> FCN -> mask files and class statistics.

In: a ShardRow with `data`. Out: the same with `png`, sizes and statistics, or an error.

Decoding and encoding run in threads beside the network, because simplejpeg and zlib-ng release
the GIL. Ray calls a replica from several threads; the network has one thread of its own, which
takes the chunks of all calls in turn.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

import fcn
from fcn.inference import DeviceError
from fcn.weights import CheckpointError
from pipeline.errors import ErrorCode, ImageError, PipelineError, SettingError
from pipeline.images.decode import check_num_pixels
from pipeline.images.masks import IGNORE_INDEX, encode_mask, make_palette
from pipeline.labelling.cost import Work
from pipeline.labelling.marks import Mark, Marks
from pipeline.labelling.mishaps import Mishaps, stop_if_everywhere
from pipeline.labelling.network import Network
from pipeline.labelling.quarantine import Treatment, Ward
from pipeline.labelling.records import ClassRecord
from pipeline.labelling.schema import ClassPixels, ImageRow, ShardRow
from pipeline.memory import limit_memory, release_free_memory
from pipeline.settings.label import LabelSettings
from pipeline.store.object_file import open_object
from pipeline.store.storage import Storage

if TYPE_CHECKING:  # importing these loads torch
    from fcn.inference.predictor import Prediction, Predictor

# Decoded pixels that one call holds at a time: 16 Mi pixels are 48 MiB of RGB. Which images share
# a chunk depends on the shard alone, and on whether replicas have GPUs, so that its masks do too.
_CHUNK_PIXELS = 16 << 20
# A GPU is through with 16 Mi pixels within 40 ms (docs/performance.md), and waits between chunks.
_CHUNK_PIXELS_OF_GPUS = 4 * _CHUNK_PIXELS
# What the tables' columns can hold (`pipeline.labelling.schema`).
_MAX_SIDE = (1 << 31) - 1


@dataclass(frozen=True)
class Placement:
    """What a replica runs on.

    Attributes:
        use_gpu: Whether Ray gives it a GPU, which it then is alone in seeing.
        threads: For decoding and encoding and, without a GPU, for the network.
        batch_size: Images of one size that go through the network together.
        gpu_share: Of the GPU's memory, what it may use, 0 to 1.
        memory_bytes: What it may use of the node's memory; None sets no limit.
        max_whole_pixels: Larger images go through the network in tiles.
    """

    use_gpu: bool
    threads: int
    batch_size: int
    gpu_share: float = 1.0
    memory_bytes: int | None = None
    max_whole_pixels: int = 16 << 20


LoadPredictor = Callable[[Placement], "Predictor"]


def open_predictor(storage: Storage, network: Network, placement: Placement) -> "Predictor":
    """Load the network in the replica.

    Args:
        storage: Reads and writes the weights.
        network: What to load.
        placement: Where to.
    """
    # Only a replica needs torch, whose import takes seconds: not the driver, which names the class.
    from fcn.weights.files import random_network, restore_file  # noqa: PLC0415

    record = network.checkpoint
    if network.uri is None:
        model = random_network(record, int(record.weights_sha256[len("random:") :]))
    else:
        with open_object(storage, network.uri) as file:
            model = restore_file(record, file)
    # A GPU has its own memory and says in order when it is full.
    memory_bytes = None if placement.use_gpu else placement.memory_bytes
    predictor = fcn.Predictor(
        model,
        record,
        device="cuda" if placement.use_gpu else "cpu",
        precision=network.precision,
        batch_size=placement.batch_size,
        max_whole_pixels=placement.max_whole_pixels,
        memory_bytes=memory_bytes,
        flip=network.flip,
        scales=network.scales,
        compiled=network.compiled,
        ignore_below=network.ignore_below,
        # Ray allows one thread per CPU that it has set aside, which would leave cores idle.
        num_threads=None if placement.use_gpu else placement.threads,
        memory_share=placement.gpu_share,
    )
    if memory_bytes is not None:
        limit_memory(memory_bytes)
    return predictor


class Segmenter:
    """One replica: an actor that holds an FCN and turns shards into mask files."""

    def __init__(
        self,
        load: LoadPredictor,
        classes: Sequence[ClassRecord],
        settings: LabelSettings,
        placement: Placement,
        marks: Marks | None = None,
    ) -> None:
        """Load the network.

        Args:
            load: Gives the network on its device.
            classes: Whose colours the palette of the masks holds.
            settings: What the job was asked to do.
            placement: What the replica runs on.
            marks: Tell a successor which shard this replica has died over; None leaves none.
        """
        self._born_at = time.time()
        self._refusal: SettingError | None = None
        # A thread and not a lock: PyTorch's CPU threads serve one caller faster than several. It
        # loads the network, too: once a second thread has called them, they sleep between calls.
        self._device = ThreadPoolExecutor(1)
        try:
            self._predictor = self._device.submit(load, placement).result()
        except CheckpointError as error:
            # Ray would take an error here for the death of a node and try again: the first shard
            # reports it.
            self._refusal = SettingError(f"weights: {error}")
        except DeviceError as error:
            self._refusal = SettingError(f"a replica's device: {error}")
        self._pool = ThreadPoolExecutor(placement.threads)
        self._busy_s = 0.0
        self._chunk_pixels = _CHUNK_PIXELS_OF_GPUS if placement.use_gpu else _CHUNK_PIXELS
        self._mishaps = Mishaps()
        palette = make_palette([label.color for label in classes])
        self._palette = None if settings.mask_colors == "none" else palette
        self._max_image_pixels = settings.max_image_pixels
        self._marks = marks
        self._ward = Ward(settings, use_gpu=placement.use_gpu)
        self._png_compress_level = settings.png_compress_level

    def __call__(self, shard: ShardRow) -> ShardRow:
        """Label one shard; an image that can't be labelled, or kills, is a row.

        Raises:
            SettingError: The weights do not fit the network that their record names, or the
                replica's device can't be used.
            RuntimeError: A bug meets every image.
            StoreError: The mark on the shard could not be left.
            ReplicasLost: Too many replicas have died over the shard.
        """
        if self._refusal is not None:
            raise self._refusal
        work = Work(**shard.get("work", {}))
        mark = None if self._marks is None else self._marks.leave(shard["shard"], self._born_at)
        work.lost_replicas = [] if mark is None else mark.lost
        with work.in_replica(), self._ward.treat(mark) as treatment:
            images = shard["images"] if mark is None else _judged(mark, shard["images"])
            with work.timed("decode"):
                measured = list(self._pool.map(partial(self._measure, treatment), images))
            labelled: list[ImageRow] = []
            for chunk in _chunks(measured, self._chunk_pixels):
                labelled += self._label(chunk, work, treatment)
        release_free_memory()
        stop_if_everywhere(shard["shard"], labelled)
        return ShardRow(shard=shard["shard"], images=labelled, work=work.model_dump())

    def _measure(self, treatment: Treatment, image: ImageRow) -> ImageRow:
        image = {**image, "height": None, "width": None, "png": None, "mean_confidence": None}
        image["classes"] = []
        data = image.get("data")
        if data is None:
            return image
        try:
            height, width = treatment.read_size(image["uri"], data)
            if max(height, width) <= _MAX_SIDE:
                image |= {"height": height, "width": width}
            check_num_pixels(height, width, self._max_image_pixels)
        except PipelineError:  # true of the machine, and of no image
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it costs this image a row
            return _failed(image, self._mishaps.image_error(error, image["uri"]))
        return image

    def _label(self, chunk: list[ImageRow], work: Work, treatment: Treatment) -> list[ImageRow]:
        with work.timed("decode"):
            decoded = list(self._pool.map(partial(self._decode, treatment), chunk))
        pairs = zip(chunk, decoded, strict=True)
        there = [(row["image_id"], one) for row, one in pairs if isinstance(one, np.ndarray)]

        def predict(pixels: list[NDArray[np.uint8]]) -> "Sequence[Prediction | None]":
            return self._device.submit(self._predict, pixels, work, treatment).result()

        try:
            predictions = iter(
                treatment.predict(predict, [name for name, _ in there], [one for _, one in there])
            )
        except FloatingPointError as error:
            raise SettingError(f"precision: {error}") from error
        found = [next(predictions) if isinstance(one, np.ndarray) else one for one in decoded]
        with work.timed("encode"):
            return list(self._pool.map(self._finish, chunk, found))

    def _predict(
        self, pixels: list[NDArray[np.uint8]], work: Work, treatment: Treatment
    ) -> "Sequence[Prediction | None]":
        """Run the network; on its own thread, so that waiting for it is not counted."""
        before = self._predictor.num_backoffs
        try:
            with work.timed("network"), treatment.network_limit(pixels):
                return self._predictor.predict(pixels)
        finally:
            work.backoffs += self._predictor.num_backoffs - before
            # With what ended only after the last call had read it.
            busy = self._predictor.device_seconds
            work.device_seconds = (work.device_seconds or 0.0) + busy - self._busy_s
            self._busy_s = busy

    def _decode(self, treatment: Treatment, image: ImageRow) -> NDArray[np.uint8] | ImageError:
        data = image.pop("data", None)
        if data is None:
            code, message = image["error_code"], image["error_message"]
            assert code is not None, f"{image['uri']} lost its error"
            assert message is not None, f"{image['uri']} lost its error"
            return ImageError(ErrorCode(code), message)
        try:
            return treatment.decode(image["uri"], data)
        except PipelineError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it costs this image a row
            return self._mishaps.image_error(error, image["uri"])

    def _finish(self, image: ImageRow, found: "Prediction | ImageError | None") -> ImageRow:
        if isinstance(found, ImageError):
            return _failed(image, found)
        if found is None:
            return _failed(image, _too_large(image))
        try:
            return self._with_mask({**image}, found)
        except Exception as error:  # noqa: BLE001 - whatever it is, it costs this image a row
            return _failed(image, self._mishaps.image_error(error, image["uri"]))

    def _with_mask(self, image: ImageRow, found: "Prediction") -> ImageRow:
        image["height"], image["width"] = found.mask.shape
        image["png"] = encode_mask(found.mask, self._palette, self._png_compress_level)
        image["mean_confidence"] = _finite(found.mean_confidence)
        image["classes"] = _class_pixels(found)
        return image


def _failed(image: ImageRow, error: ImageError) -> ImageRow:
    return {**image, "data": None, "error_code": str(error.code), "error_message": error.message}


def _too_large(image: ImageRow) -> ImageError:
    return ImageError(
        ErrorCode.OUT_OF_MEMORY,
        f"{image['height']} x {image['width']} pixels need more memory than the replica has, even "
        "in tiles; fewer replicas per node or a narrower network leave it more",
    )


def _judged(mark: Mark, images: list[ImageRow]) -> list[ImageRow]:
    """Fail the images that earlier replicas have died over."""
    culprits = mark.culprits
    return [
        _failed(image, ImageError(*culprits[image["image_id"]]))
        if image["image_id"] in culprits
        else image
        for image in images
    ]


def _class_pixels(prediction: "Prediction") -> list[ClassPixels]:
    total = int(prediction.class_pixels.sum()) + prediction.ignored_pixels
    assert total == prediction.mask.size, f"counted {total} of {prediction.mask.size} pixels"
    found = [
        ClassPixels(
            class_id=int(index),
            pixel_count=int(prediction.class_pixels[index]),
            mean_confidence=_finite(float(prediction.class_confidence[index])),
        )
        for index in np.flatnonzero(prediction.class_pixels)
    ]
    if prediction.ignored_pixels:
        number, confidence = prediction.ignored_pixels, _finite(prediction.ignored_confidence)
        found.append(
            ClassPixels(class_id=IGNORE_INDEX, pixel_count=number, mean_confidence=confidence)
        )
    return found


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _chunks(images: list[ImageRow], max_pixels: int) -> Iterator[list[ImageRow]]:
    chunk: list[ImageRow] = []
    num_pixels = 0
    for image in images:
        size = (image["height"] or 0) * (image["width"] or 0) if image.get("data") else 0
        if chunk and num_pixels + size > max_pixels:
            yield chunk
            chunk, num_pixels = [], 0
        chunk.append(image)
        num_pixels += size
    if chunk:
        yield chunk
