"""Segment: encoded bytes -> decode -> FCN -> mask files and class statistics.

In: a ShardRow with `data`. Out: the same with `png`, sizes and statistics, or an error.

Decoding and encoding run in threads beside the network, because JPEG decoders and zlib release
the GIL. Ray calls a replica from several threads; the network has one thread of its own, which
takes the chunks of all calls in turn.
"""

import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fcn.architectures import ARCHITECTURES, FULL_WIDTH, PADDINGS, WIDTH
from fcn.weights import CheckpointError
from fcn.weights.classes import ClassLabel, numbered_classes, parse_classes
from fcn.weights.record import Checkpoint, refuse_untrained
from pipeline.errors import ErrorCode, ImageError, SettingError, StoreError
from pipeline.images.decode import DECODER, check_num_pixels, decode_image, read_size
from pipeline.images.masks import encode_mask, make_palette
from pipeline.memory import limit_memory, release_free_memory
from pipeline.runs import ClassRecord, NetworkRecord
from pipeline.schema import ClassPixels, ImageRow, ShardRow
from pipeline.settings.label import LabelSettings
from pipeline.store.storage import Storage
from pipeline.store.uri import normalise_uri
from pipeline.work import Work

if TYPE_CHECKING:  # importing these loads torch
    from fcn.inference.predictor import Prediction, Predictor

_log = logging.getLogger(__name__)

# Decoded pixels that one call holds at a time: 16 Mi pixels are 48 MiB of RGB. Which images share
# a chunk depends on the shard alone, so that its masks do too.
_CHUNK_PIXELS = 16 << 20
_DEFAULT_NUM_CLASSES = 21
_NUM_CHANNELS = 3
# Untrained networks are for trying things out: a narrow one is as good.
_RANDOM_WIDTH = 16


@dataclass(frozen=True)
class Network:
    """What a replica loads and how it scores: all that decides a mask's pixels.

    `uri` is None for random weights; `flip` and `scales` are the views of test time.
    """

    checkpoint: Checkpoint
    uri: str | None
    precision: str
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    compiled: bool = False

    def record(self) -> NetworkRecord:
        """Give what run.json and the tables say of the network."""
        deciding = self._deciding()
        text = json.dumps(deciding, sort_keys=True)
        return NetworkRecord(
            fingerprint=hashlib.sha256(text.encode()).hexdigest()[:32],
            weights=self.uri or self.checkpoint.weights_sha256,
            untrained=self.checkpoint.untrained,
            deciding=deciding,
            classes=[
                ClassRecord(id=index, name=label.name, color=label.color)
                for index, label in enumerate(self.checkpoint.classes)
            ],
        )

    def _deciding(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self.checkpoint)
        # A checkpoint with untrained layers labels nothing.
        del fields["provenance"], fields["untrained_layers"]
        fields["classes"] = [[label.name, *label.color] for label in self.checkpoint.classes]
        for name in ("mean", "std"):
            fields[name] = list(fields[name])
        views = {"flip": self.flip, "scales": list(self.scales), "compiled": self.compiled}
        return {**fields, **views, "decoder": DECODER, "precision": self.precision}


def describe_network(storage: Storage, settings: LabelSettings) -> Network:
    """Read the checkpoint's record, without the weights and without torch.

    Raises:
        SettingError: There is no such checkpoint, or it does not fit the settings.
    """
    try:
        if settings.random_weights:
            return _network(_random_record(storage, settings), None, settings)
        if not settings.weights.endswith(".safetensors"):
            raise SettingError(
                f"weights={settings.weights!r} must end in .safetensors; `fcn import-weights` "
                "makes such a checkpoint of what others have published"
            )
        uri = normalise_uri(settings.weights, "weights")
        record_uri = uri.removesuffix(".safetensors") + ".json"
        record = Checkpoint.from_json(_read(storage, record_uri, "weights"))
        refuse_untrained(record)
        if settings.padding is not None:
            record = dataclasses.replace(record, padding=settings.padding)
    except CheckpointError as error:
        raise SettingError(f"weights={settings.weights!r}: {error}") from error
    _check_expectations(record, settings)
    return _network(record, uri, settings)


def _network(record: Checkpoint, uri: str | None, settings: LabelSettings) -> Network:
    return Network(
        record, uri, settings.precision, settings.flip, settings.scales, settings.compiled
    )


def check_weights(storage: Storage, network: Network) -> None:
    """Compare the weights' bytes with their record, before any replica is started.

    Raises:
        SettingError: They differ, or the network is unknown.
    """
    if network.uri is None:
        return
    found = hashlib.sha256(_read(storage, network.uri, "weights")).hexdigest()
    if found != network.checkpoint.weights_sha256:
        raise SettingError(
            f"weights={network.uri!r} has sha256 {found}, but its record says "
            f"{network.checkpoint.weights_sha256}; copy both files again"
        )


@dataclass(frozen=True)
class Placement:
    """What a replica runs on.

    Attributes:
        use_gpu: Whether Ray gives it a GPU, which it then is alone in seeing.
        threads: For decoding and encoding and, without a GPU, for the network.
        batch_size: Images of one size that go through the network together.
        memory_bytes: What it may use of the node's memory; None sets no limit.
        max_whole_pixels: Larger images go through the network in tiles.
    """

    use_gpu: bool
    threads: int
    batch_size: int
    memory_bytes: int | None = None
    max_whole_pixels: int = 16 << 20


LoadPredictor = Callable[[Placement], "Predictor"]


def open_predictor(storage: Storage, network: Network, placement: Placement) -> "Predictor":
    """Load the network in the replica.

    Args:
        storage: Of the weights.
        network: What to load.
        placement: Where to.
    """
    # Only a replica needs torch, whose import takes seconds: not the driver, which names the class.
    import fcn.inference.predictor  # noqa: PLC0415
    import fcn.weights.files  # noqa: PLC0415

    record = network.checkpoint
    if network.uri is None:
        model = fcn.weights.files.random_network(
            record, int(record.weights_sha256[len("random:") :])
        )
    else:
        model = fcn.weights.files.restore(record, storage.read(network.uri))
    # A GPU has its own memory and says in order when it is full.
    memory_bytes = None if placement.use_gpu else placement.memory_bytes
    predictor = fcn.inference.predictor.Predictor(
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
        # Ray allows one thread per CPU that it has set aside, which would leave cores idle.
        num_threads=None if placement.use_gpu else placement.threads,
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
    ) -> None:
        """Load the network.

        Args:
            load: Gives the network on its device.
            classes: Whose colours the palette of the masks holds.
            settings: Of the job.
            placement: What the replica runs on.
        """
        self._refusal: SettingError | None = None
        try:
            self._predictor = load(placement)
        except CheckpointError as error:
            # Ray would take an error here for the death of a node and try again: the first shard
            # reports it.
            self._refusal = SettingError(f"weights: {error}")
        # A thread and not a lock: PyTorch's CPU threads serve one caller faster than several.
        self._device = ThreadPoolExecutor(1)
        self._pool = ThreadPoolExecutor(placement.threads)
        self._palette = make_palette([label.color for label in classes])
        self._max_image_pixels = settings.max_image_pixels
        self._png_compress_level = settings.png_compress_level

    def __call__(self, shard: ShardRow) -> ShardRow:
        """Label one shard; an image that can't be labelled is a row.

        Raises:
            SettingError: The weights do not fit the network that their record names.
        """
        if self._refusal is not None:
            raise self._refusal
        work = Work(**shard.get("work", {}))
        with work.in_replica():
            with work.timed("decode"):
                measured = list(self._pool.map(self._measure, shard["images"]))
            labelled: list[ImageRow] = []
            for chunk in _chunks(measured):
                labelled += self._label(chunk, work)
        release_free_memory()
        return ShardRow(shard=shard["shard"], images=labelled, work=work.model_dump())

    def _measure(self, image: ImageRow) -> ImageRow:
        image = {**image, "height": None, "width": None, "png": None, "mean_confidence": None}
        image["classes"] = []
        data = image.get("data")
        if data is None:
            return image
        try:
            height, width = read_size(data)
            image |= {"height": height, "width": width}
            check_num_pixels(height, width, self._max_image_pixels)
        except ImageError as error:
            return _failed(image, error.code, error.message)
        return image

    def _label(self, chunk: list[ImageRow], work: Work) -> list[ImageRow]:
        with work.timed("decode"):
            decoded = list(self._pool.map(self._decode, chunk))
        pixels = [found for found in decoded if isinstance(found, np.ndarray)]
        try:
            predictions = iter(self._device.submit(self._predict, pixels, work).result())
        except FloatingPointError as error:
            raise SettingError(f"precision: {error}") from error
        found = [next(predictions) if isinstance(one, np.ndarray) else one for one in decoded]
        with work.timed("encode"):
            return list(self._pool.map(self._finish, chunk, found))

    def _predict(
        self, pixels: list[NDArray[np.uint8]], work: Work
    ) -> "Sequence[Prediction | None]":
        """Run the network; on its own thread, so that waiting for it is not counted."""
        before = self._predictor.num_backoffs
        with work.timed("network"):
            predictions = self._predictor.predict(pixels)
        work.backoffs += self._predictor.num_backoffs - before
        return predictions

    def _decode(self, image: ImageRow) -> NDArray[np.uint8] | ImageError:
        data = image.pop("data", None)
        if data is None:
            code, message = image["error_code"], image["error_message"]
            assert code is not None, f"{image['uri']} lost its error"
            assert message is not None, f"{image['uri']} lost its error"
            return ImageError(ErrorCode(code), message)
        try:
            return decode_image(data, self._max_image_pixels)
        except ImageError as error:
            return error

    def _finish(self, image: ImageRow, found: "Prediction | ImageError | None") -> ImageRow:
        if isinstance(found, ImageError):
            return _failed(image, found.code, found.message)
        if found is None:
            size = f"{image['height']} x {image['width']}"
            return _failed(
                image,
                ErrorCode.OUT_OF_MEMORY,
                f"{size} pixels need more memory than the replica has, even in tiles; fewer "
                "replicas per node or a narrower network leave it more",
            )
        image["height"], image["width"] = found.mask.shape
        image["png"] = encode_mask(found.mask, self._palette, self._png_compress_level)
        image["mean_confidence"] = _finite(found.mean_confidence)
        image["classes"] = _class_pixels(found)
        return image


def _failed(image: ImageRow, code: ErrorCode, message: str) -> ImageRow:
    return {**image, "data": None, "error_code": str(code), "error_message": message}


def _class_pixels(prediction: "Prediction") -> list[ClassPixels]:
    total = int(prediction.class_pixels.sum())
    assert total == prediction.mask.size, f"counted {total} of {prediction.mask.size} pixels"
    return [
        ClassPixels(
            class_id=int(index),
            pixel_count=int(prediction.class_pixels[index]),
            mean_confidence=_finite(float(prediction.class_confidence[index])),
        )
        for index in np.flatnonzero(prediction.class_pixels)
    ]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _chunks(images: list[ImageRow]) -> Iterator[list[ImageRow]]:
    chunk: list[ImageRow] = []
    num_pixels = 0
    for image in images:
        size = (image["height"] or 0) * (image["width"] or 0) if image.get("data") else 0
        if chunk and num_pixels + size > _CHUNK_PIXELS:
            yield chunk
            chunk, num_pixels = [], 0
        chunk.append(image)
        num_pixels += size
    if chunk:
        yield chunk


def _random_record(storage: Storage, settings: LabelSettings) -> Checkpoint:
    return Checkpoint(
        network=settings.network,
        classes=_classes(storage, settings),
        width=settings.width or _default_width(settings.network),
        padding=settings.padding or PADDINGS[0],
        weights_sha256=settings.weights,
    )


def _default_width(network: str) -> int:
    return _RANDOM_WIDTH if WIDTH in ARCHITECTURES.get(network, ()) else FULL_WIDTH


def _classes(storage: Storage, settings: LabelSettings) -> tuple[ClassLabel, ...]:
    if settings.classes is None:
        return numbered_classes(settings.num_classes or _DEFAULT_NUM_CLASSES)
    uri = normalise_uri(settings.classes, "classes")
    classes = parse_classes(_read(storage, uri, "classes"))
    if settings.num_classes not in (None, len(classes)):
        raise SettingError(
            f"num_classes={settings.num_classes}, but {uri} has {len(classes)} classes"
        )
    return classes


def _check_expectations(record: Checkpoint, settings: LabelSettings) -> None:
    if record.in_channels != _NUM_CHANNELS:
        raise SettingError(
            f"weights={settings.weights!r} takes {record.in_channels} channels; images are decoded "
            f"to {_NUM_CHANNELS} (RGB)"
        )
    if settings.num_classes not in (None, record.num_classes):
        raise SettingError(
            f"num_classes={settings.num_classes}, but the checkpoint {settings.weights} has "
            f"{record.num_classes} classes; leave num_classes out, or use another checkpoint"
        )
    if settings.weights_sha256 not in (None, record.weights_sha256):
        raise SettingError(
            f"weights_sha256={settings.weights_sha256}, but the checkpoint {settings.weights} "
            f"has {record.weights_sha256}"
        )


def _read(storage: Storage, uri: str, field: str) -> bytes:
    try:
        return storage.read(uri)
    except StoreError as error:
        if error.code in (ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN):
            raise SettingError(f"{field}: {error.message}") from error
        raise
