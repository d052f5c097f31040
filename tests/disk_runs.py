"""Whole runs on a disk, step by step, without Ray and without torch."""

import io
import math
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fcn.weights.classes import numbered_classes
from fcn.weights.record import Checkpoint
from pipeline.labelling.draft import draft
from pipeline.labelling.fetch import Fetch
from pipeline.labelling.history import History
from pipeline.labelling.network import Network
from pipeline.labelling.plan import start_run as write_plan
from pipeline.labelling.records import NetworkRecord
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import Receipt, ShardRow, ShardTask
from pipeline.labelling.segment import Placement, Segmenter
from pipeline.labelling.shards import Shards
from pipeline.labelling.write import Write
from pipeline.settings.label import LabelSettings
from pipeline.store.storage import Storage

NUM_CLASSES = 4


@dataclass(frozen=True)
class FakePrediction:
    """What `fcn.inference.predictor.Prediction` holds."""

    mask: NDArray[np.uint8]
    class_pixels: NDArray[np.int64]
    class_confidence: NDArray[np.float64]
    mean_confidence: float
    ignored_pixels: int = 0
    ignored_confidence: float = math.nan


def predict_red(image: NDArray[np.uint8]) -> FakePrediction:
    """Take a pixel's red value, modulo the number of classes, as its class."""
    mask = image[..., 0] % NUM_CLASSES
    pixels = np.bincount(mask.ravel(), minlength=NUM_CLASSES)
    confidence = np.where(pixels > 0, (1 + np.arange(NUM_CLASSES)) / 8, np.nan)
    return FakePrediction(mask, pixels, confidence, 0.5)


class RedPredictor:
    """Stands in for `fcn.Predictor` and remembers the sizes that it was given."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[int, ...]]] = []

    num_backoffs = 0
    device_seconds = 0.0

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[FakePrediction | None]:
        self.calls.append([image.shape for image in images])
        return [predict_red(image) for image in images]


def encode(picture: Image.Image, format_name: str, **options: Any) -> bytes:
    """Encode a picture with Pillow."""
    buffer = io.BytesIO()
    # Pillow's JPEG writer leaves its options in the picture, where its TIFF writer trips over them.
    picture.copy().save(buffer, format=format_name, **options)
    return buffer.getvalue()


def random_pixels(seed: int, *shape: int) -> NDArray[np.uint8]:
    """Return bytes without any structure; the same seed gives the same."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def draw_images(folder: Path, number: int) -> Path:
    """Write noise as `in/image_0.png`, ...: sizes differ; what is there already is kept."""
    (folder / "in").mkdir(exist_ok=True)
    for index in range(number):
        path = folder / "in" / f"image_{index}.png"
        if not path.exists():
            Image.fromarray(random_pixels(index, 5 + index % 3, 7, 3)).save(path)
    return folder / "in"


def network_record(weights: str = "random:0") -> NetworkRecord:
    """Return the record of a network with `NUM_CLASSES` classes."""
    classes = numbered_classes(NUM_CLASSES)
    checkpoint = Checkpoint("fcn_all_skips", classes, width=4, weights_sha256=weights)
    return Network(checkpoint, None, "fp32").record()


def make_settings(folder: Path, source: object, **fields: Any) -> LabelSettings:
    """Return settings with the output `folder`/out."""
    defaults = {"input": str(source), "output": str(folder / "out"), "weights": "random:0"}
    return LabelSettings(**{**defaults, "io_threads": 2, **fields})


def start_run(
    folder: Path, source: object, network: NetworkRecord | None = None, **fields: Any
) -> Run:
    """Plan a run of an input in the output `folder`/out."""
    settings = make_settings(folder, source, **fields)
    network = network or network_record(settings.weights)
    history = History(Storage(), settings.output)
    return write_plan(Storage(), settings, network, draft(history, settings, network))


def segmenter(run: Run, predictor: Any) -> Segmenter:
    """Return a replica that holds a stand-in for the network."""
    colours = run.record.settings["mask_colors"]
    settings = LabelSettings(input="in", output="out", weights="random:0", mask_colors=colours)
    return Segmenter(
        lambda _: predictor,
        run.record.network.classes,
        settings,
        Placement(use_gpu=False, threads=2, batch_size=8),
    )


def segmented(run: Run, task: ShardTask, predictor: Any = None) -> ShardRow:
    """Fetch and segment one shard."""
    fetched = Fetch(run.storage, 1 << 20, 2).shard(task)
    return segmenter(run, predictor or RedPredictor())(fetched)


def label_run(run: Run, predictor: Any = None) -> list[Receipt]:
    """Do all that a run has left to do, in order of the shards."""
    return [Write(run, 2)(segmented(run, task, predictor)) for task in run.missing()]


def label_tasks(run: Run, todo: Shards, settings: LabelSettings) -> Iterator[Receipt]:
    """Do some shards one after the other, as `flow.label_shards` does them in Ray."""
    fetch = Fetch(run.storage, settings.max_image_bytes, settings.io_threads)
    segment, write = segmenter(run, RedPredictor()), Write(run, settings.io_threads)
    for group in todo.groups():
        # Between processes the steps travel pickled.
        for fetched in pickle.loads(pickle.dumps(fetch))(group):
            yield pickle.loads(pickle.dumps(write))(segment(fetched))
