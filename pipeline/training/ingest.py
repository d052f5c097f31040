"""Ingest: training images by way of Ray tasks, in an order that the plan alone decides.

The samples of a run are one endless sequence: one permutation of the training images after
another. A step takes the next `batch_size` of them, a worker its part of those. So what a step sees
depends on the seed and its number, and not on workers, restarts or Ray's version: any step can be
gone back to, also amid an epoch. (Ray Train's own `streaming_split` hands blocks to whoever asks
first, and drops what does not divide.)

A task loads a worker's part of several steps, wherever the cluster has CPUs, and hands over each
as it is ready. It is told what to load and nothing else: no table of all samples travels. Not a
dataset of Ray Data, which would have to begin anew every few steps so as not to load without end:
that costs 50 ms and a folder of logs each time.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, islice
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from fcn.training.batch import Batch
from pipeline.cluster.ray_errors import own_errors
from pipeline.cluster.tasks import TASK_CPUS
from pipeline.errors import ImageError, InputError
from pipeline.images.augment import Augment
from pipeline.images.decode import decode_image
from pipeline.images.ground_truth import Coding, TruthError, decode_truth
from pipeline.inputs.samples import Sample
from pipeline.store.cells import read_image
from pipeline.store.storage import Storage

# Tasks that load while the network has what others have loaded.
_TASKS = 8
# Loaded and not yet used, over all tasks: rows, and bytes.
_MAX_ROWS = 64
_MAX_BYTES = 256 << 20
_PREFETCHED = 4
_EVALUATED_AT_A_TIME = 8
_END = object()

Pixels = NDArray[np.uint8]
Loaded = tuple[Pixels, Pixels]


@dataclass(frozen=True)
class Order:
    """Which sample is shown when."""

    num_samples: int
    seed: int

    def samples(self, first: int, number: int) -> list[int]:
        """Return the indices of the samples at `first`, `first` + 1, ... of the endless sequence.

        Args:
            first: Samples shown before, since the beginning of the run.
            number: How many.
        """
        epochs, places = np.divmod(np.arange(first, first + number), self.num_samples)
        pairs = zip(epochs.tolist(), places.tolist(), strict=True)
        return [
            int(_permutation(self.seed, epoch, self.num_samples)[place]) for epoch, place in pairs
        ]


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, number: int) -> NDArray[np.int64]:
    """Shuffle an epoch; that of a million samples takes longer than a step."""
    return np.random.default_rng([seed, epoch]).permutation(number)


@dataclass(frozen=True)
class Reader:
    """Reads and decodes samples as the labelling job does; travels to tasks."""

    storage: Storage
    coding: Coding
    max_image_pixels: int
    threads: int

    def __call__(self, sample: Sample) -> Loaded:
        """Read one sample.

        Raises:
            InputError: It was fine when the run began, and is not any more.
            StoreError: The store does not answer.
        """
        try:
            image = decode_image(read_image(self.storage, sample.image), self.max_image_pixels)
            truth = decode_truth(self.storage.read_extent(sample.mask), self.coding)
        except (ImageError, TruthError) as error:
            raise InputError(f"{sample.image_uri} or its truth: {error}") from error
        return image, truth


@dataclass(frozen=True)
class Share:
    """Which part of every step falls to a worker.

    Attributes:
        rank: The worker's rank.
        world_size: Workers.
        batch_size: Images per step over all of them; at least one for each.
    """

    rank: int
    world_size: int
    batch_size: int

    def places(self, step: int) -> range:
        """Return the places of the worker's part of a step in the endless row."""
        first = step * self.batch_size
        return range(first + self._begin(self.rank), first + self._begin(self.rank + 1))

    def _begin(self, rank: int) -> int:
        # Parts differ by one image at most.
        return rank * self.batch_size // self.world_size


@dataclass(frozen=True)
class Showing:
    """A sample to load.

    Attributes:
        sample: Which one.
        place: In the endless row; it seeds the view. None loads the sample as it is.
    """

    sample: Sample
    place: int | None = None


Row = list[Showing]


@dataclass(frozen=True)
class Load:
    """Loads rows of samples: in a Ray task, with threads.

    Attributes:
        read: Gives the pixels.
        augment: Draws views; each showing has a seed of its own.
        seed: Decides the run.
    """

    read: Reader
    augment: Augment
    seed: int

    def __call__(self, rows: Sequence[Row]) -> Iterator[list[Loaded]]:
        """Load rows, one after the other. Raises as `Reader`."""
        with ThreadPoolExecutor(self.read.threads) as pool:
            for row in rows:
                yield list(pool.map(self._one, row))

    def _one(self, showing: Showing) -> Loaded:
        image, truth = self.read(showing.sample)
        if showing.place is None:
            return image, truth
        return self.augment(image, truth, [self.seed, showing.place])


def steps(
    load: Load, table: pa.Table, share: Share, first: int, last: int | None
) -> Iterator[Batch]:
    """Return a worker's part of the steps from `first` up to `last`, without it, in order.

    Args:
        load: Loads a step.
        table: All samples, as `as_table` lays them out.
        share: The worker's.
        first: Number of the first step.
        last: None goes on for ever.

    Raises:
        PipelineError: As `Reader`.
    """
    numbers = count(first) if last is None else iter(range(first, last))
    order = Order(table.num_rows, load.seed)
    rows = (_row(table, order, share.places(step)) for step in numbers)
    for row, loaded in _in_background(_in_order(rows, load)):
        images, truths = zip(*loaded, strict=True)
        yield Batch(images, truths, [showing.place for showing in row])


def _row(table: pa.Table, order: Order, places: range) -> Row:
    taken = table.take(order.samples(places.start, len(places))).to_pylist()
    return [Showing(Sample(**one), place) for one, place in zip(taken, places, strict=True)]


def samples(load: Load, table: pa.Table) -> Iterator[Loaded]:
    """Return samples as they are, one by one, for an evaluation.

    Args:
        load: Loads some.
        table: As `as_table` lays them out.

    Raises:
        PipelineError: As `Reader`.
    """
    parts = (table.slice(first, _EVALUATED_AT_A_TIME) for first in _firsts(table))
    rows = ([Showing(Sample(**one)) for one in part.to_pylist()] for part in parts)
    for _, loaded in _in_background(_in_order(rows, load)):
        yield from loaded


def _firsts(table: pa.Table) -> range:
    return range(0, table.num_rows, _EVALUATED_AT_A_TIME)


def _in_order(rows: Iterator[Row], load: Load) -> Iterator[tuple[Row, list[Loaded]]]:
    """Load rows in Ray tasks, each several of them, a limited number ahead of their use."""
    # The driver minds the silence of its workers; a task whose node dies is done again by Ray.
    task = ray.remote(num_cpus=TASK_CPUS, scheduling_strategy="SPREAD")(_as_task(load))
    waiting: deque[tuple[list[Row], Any]] = deque()
    most = 1
    try:
        while True:
            per_task = max(1, most // _TASKS)
            while len(waiting) < min(_TASKS, most) and (some := list(islice(rows, per_task))):
                waiting.append((some, task.remote(some)))
            if not waiting:
                return
            for row, ref in zip(*waiting.popleft(), strict=True):
                with own_errors():
                    loaded = ray.get(ref)
                most = _rows_that_fit(loaded)
                yield row, loaded
    finally:
        for _, results in waiting:
            ray.cancel(results)


def _as_task(load: Load) -> Callable[[list[Row]], Iterator[list[Loaded]]]:
    """Make a function of it: Ray takes no objects that can be called."""

    def load_rows(rows: list[Row]) -> Iterator[list[Loaded]]:
        yield from load(rows)

    return load_rows


def _rows_that_fit(loaded: list[Loaded]) -> int:
    num_bytes = sum(image.nbytes + truth.nbytes for image, truth in loaded)
    return max(1, min(_MAX_ROWS, _MAX_BYTES // (1 + num_bytes)))


def _in_background(values: Iterator[Any]) -> Iterator[Any]:
    """Take values a few ahead: what comes next is on its way to this node meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        ahead = deque(pool.submit(next, values, _END) for _ in range(_PREFETCHED))
        while (value := ahead.popleft().result()) is not _END:
            ahead.append(pool.submit(next, values, _END))
            yield value
