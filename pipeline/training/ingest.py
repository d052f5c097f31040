"""Ingest: training images by way of Ray Data, in an order that the plan alone decides.

The samples of a run are one endless row: one permutation of the training images after the other.
A step takes the next `batch_size` of them, a worker its equal part of those. So what a step sees
depends on the seed and its number, and not on workers, blocks, restarts or Ray's version: any step
can be gone back to, also amid an epoch. (Ray Train's own `streaming_split` hands blocks to
whoever asks first, and drops what does not divide.)

One Ray row is a worker's part of one step. Each worker runs a dataset of its own, whose tasks run
wherever the cluster has CPUs.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from fcn.training.batch import Batch
from pipeline.cluster.ray_errors import own_errors
from pipeline.cluster.tasks import in_tasks
from pipeline.errors import ImageError, InputError
from pipeline.images.augment import Augment
from pipeline.images.decode import decode_image
from pipeline.images.ground_truth import Coding, TruthError, decode_truth
from pipeline.store.storage import Storage

# Loaded together, while as many are in use: a dataset costs some 50 ms to start.
_MAX_ROWS = 64
_MAX_BYTES = 256 << 20
_PREFETCHED = 4
_EVALUATED_AT_A_TIME = 8

Row = dict[str, int]


@dataclass(frozen=True)
class Order:
    """Which sample is shown when."""

    num_samples: int
    seed: int

    def samples(self, first: int, number: int) -> list[int]:
        """Return the indices of the samples at `first`, `first` + 1, ... of the endless row.

        Args:
            first: Samples shown before, since the beginning of the run.
            number: How many.
        """
        positions = np.arange(first, first + number)
        epochs, places = np.divmod(positions, self.num_samples)
        shuffled = {
            epoch: np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)
            for epoch in np.unique(epochs).tolist()
        }
        pairs = zip(epochs.tolist(), places.tolist(), strict=True)
        return [int(shuffled[epoch][place]) for epoch, place in pairs]


@dataclass(frozen=True)
class Reader:
    """Reads and decodes samples as the labelling job does; travels to tasks."""

    storage: Storage
    coding: Coding
    max_image_pixels: int
    threads: int

    def __call__(self, sample: dict[str, str]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read one sample.

        Raises:
            InputError: It was fine when the run began, and is not any more.
            StoreError: The store does not answer.
        """
        try:
            image = decode_image(self.storage.read(sample["image_uri"]), self.max_image_pixels)
            truth = decode_truth(self.storage.read(sample["mask_uri"]), self.coding)
        except (ImageError, TruthError) as error:
            raise InputError(f"{sample['image_uri']} or its truth: {error}") from error
        return image, truth


@dataclass(frozen=True)
class Share:
    """Which part of every step falls to a worker.

    Attributes:
        rank: Of the worker.
        world_size: Workers.
        batch_size: Images per step over all of them.
    """

    rank: int
    world_size: int
    batch_size: int

    def first(self, step: int) -> int:
        """Return the place of the worker's first sample of a step in the endless row."""
        return step * self.batch_size + self.rank * self.number

    @property
    def number(self) -> int:
        """Samples of a step that fall to the worker."""
        return self.batch_size // self.world_size


class LoadStep:
    """Loads a worker's part of one step: in a Ray task, with threads."""

    def __init__(
        self, read: Reader, samples: pa.Table, order: Order, share: Share, augment: Augment
    ) -> None:
        """Take along what decides the images.

        Args:
            read: Gives the pixels.
            samples: image_uri and mask_uri.
            order: Of the samples.
            share: The worker's.
            augment: Draws views; each showing has a seed of its own.
        """
        self._read = read
        self._samples = samples
        self._order = order
        self._share = share
        self._augment = augment

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Load the part of step `row["step"]`.

        Raises:
            PipelineError: As `Reader`.
        """
        places = self.places(int(row["step"]))
        indices = self._order.samples(places.start, len(places))
        with ThreadPoolExecutor(self._read.threads) as pool:
            return _pack(list(pool.map(self._load, places, indices)))

    def places(self, step: int) -> range:
        """Return the places of the worker's part of a step in the endless row."""
        first = self._share.first(step)
        return range(first, first + self._share.number)

    def _load(self, place: int, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        image, truth = self._read(self._samples.slice(index, 1).to_pylist()[0])
        return self._augment(image, truth, [self._order.seed, place])


class LoadSamples:
    """Loads samples as they are, for an evaluation."""

    def __init__(self, read: Reader, samples: pa.Table) -> None:
        """Take the samples along.

        Args:
            read: Gives the pixels.
            samples: image_uri and mask_uri.
        """
        self._read = read
        self._samples = samples

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Load the samples from `row["first"]` on. Raises as `Reader`."""
        some = self._samples.slice(int(row["first"]), _EVALUATED_AT_A_TIME).to_pylist()
        with ThreadPoolExecutor(self._read.threads) as pool:
            return _pack(list(pool.map(self._read, some)))


def steps(load: LoadStep, first: int, last: int | None) -> Iterator[Batch]:
    """Return a worker's part of the steps from `first` up to `last`, without it, in order.

    Args:
        load: Loads a step.
        first: Number of the first step.
        last: None goes on for ever.

    Raises:
        PipelineError: As `Reader`.
    """
    numbers = count(first) if last is None else iter(range(first, last))
    for step, (pixels, truths) in _in_order(({"step": step} for step in numbers), load):
        yield Batch(pixels, truths, load.places(step["step"]))


def samples(
    load: LoadSamples, number: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Return samples one by one.

    Args:
        load: Loads some.
        number: How many there are.

    Raises:
        PipelineError: As `Reader`.
    """
    rows = ({"first": first} for first in range(0, number, _EVALUATED_AT_A_TIME))
    for _, (pixels, truths) in _in_order(rows, load):
        yield from zip(pixels, truths, strict=True)


def _in_order(
    rows: Iterator[Row], load: LoadStep | LoadSamples
) -> Iterator[tuple[Row, tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]]]:
    """Load rows some at a time, the next ones while the caller has these.

    One dataset for all of them would load until Ray's store is full, or until a limit is met; then
    Ray Data's loop spins, and takes a core and the interpreter's lock from the network.
    """
    number = 1
    with ThreadPoolExecutor(1) as ahead:
        some = list(islice(rows, number))
        loading = ahead.submit(_load_all, some, load)
        while some:
            refs = loading.result()
            these, some = some, list(islice(rows, number))
            loading = ahead.submit(_load_all, some, load)
            for index, row in enumerate(these):
                # What comes next is on its way to this node meanwhile.
                ray.wait(refs[index : index + _PREFETCHED], timeout=0)
                table = ray.get(refs[index])
                number = max(1, min(_MAX_ROWS, int(_MAX_BYTES / (1 + table.nbytes))))
                yield row, _unpack(table)


def _load_all(rows: list[Row], load: LoadStep | LoadSamples) -> list[ray.ObjectRef[pa.Table]]:
    """Load rows in Ray tasks; gives references to a table of one row for each, in order."""
    if not rows:
        return []
    with own_errors():
        # The driver minds the silence of its workers.
        refs: list[ray.ObjectRef[pa.Table]] = in_tasks(rows, load, None).to_arrow_refs()
    return refs


def _pack(
    loaded: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]],
) -> dict[str, Any]:
    """Lay pixels of any sizes out as bytes, which Arrow carries without a copy."""
    return {
        "heights": [truth.shape[0] for _, truth in loaded],
        "widths": [truth.shape[1] for _, truth in loaded],
        "pixels": b"".join(image.tobytes() for image, _ in loaded),
        "truths": b"".join(truth.tobytes() for _, truth in loaded),
    }


def _unpack(row: pa.Table) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
    sizes = list(zip(*(row[name][0].as_py() for name in ("heights", "widths")), strict=True))
    pixels = np.frombuffer(row["pixels"][0].as_buffer(), np.uint8)
    truths = np.frombuffer(row["truths"][0].as_buffer(), np.uint8)
    ends = np.cumsum([height * width for height, width in sizes])[:-1]
    return (
        [
            part.reshape(*size, 3)
            for part, size in zip(np.split(pixels, 3 * ends), sizes, strict=True)
        ],
        [part.reshape(size) for part, size in zip(np.split(truths, ends), sizes, strict=True)],
    )
