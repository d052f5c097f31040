"""Quarantine: how a replica treats a shard, by how many replicas it has ended before.

None: it decodes in its threads, and runs the network on batches.
One: a decoder may be at fault. Each image is decoded in a child process, with a time limit; the
    child's pixels are used, so that a picture that only a replica dies of is one no more.
Two: the network may be. It is given one image at a time, while no other work of the replica is at
    risk, and the mark says which: an image that two replicas have died over is the culprit.

A shard's culprits in decoders cost one replica together, each of those in the network two more.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.images.decode import decode_image, read_size
from pipeline.images.isolated import IsolatedDecoder
from pipeline.labelling.marks import Mark
from pipeline.labelling.watchdog import Watchdog
from pipeline.settings.label import LabelSettings

if TYPE_CHECKING:  # importing it loads torch
    from fcn.inference.predictor import Prediction

_DEATHS_BEFORE_ALONE = 2
_MEGAPIXEL = 1e6
# A thread that only has to look at a clock may wait so long on a busy machine.
_LEAST_LOCK_S = 15.0
# Small pictures cost more than their pixels: networks pad them.
_LEAST_PIXELS = 0.1 * _MEGAPIXEL
# torch.compile takes minutes for each size of pictures, at each scale.
_COMPILE_S = 600.0
# A GPU's first pictures wait for the driver, cuDNN's choice of algorithms and Triton's compiler.
_GPU_FIRST_S = 120.0

Predict = Callable[[list[NDArray[np.uint8]]], "Sequence[Prediction | None]"]


class Gate:
    """Keeps work apart that must not be at risk together."""

    def __init__(self) -> None:
        """Open it."""
        self._changed = threading.Condition()
        self._num_inside = 0
        self._num_waiting_alone = 0

    @contextmanager
    def together(self) -> Iterator[None]:
        """Work beside others."""
        with self._changed:
            self._changed.wait_for(lambda: self._num_inside >= 0 and not self._num_waiting_alone)
            self._num_inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Work while nobody else does."""
        with self._changed:
            self._num_waiting_alone += 1
            self._changed.wait_for(lambda: self._num_inside == 0)
            self._num_waiting_alone -= 1
            self._num_inside = -1
        try:
            yield
        finally:
            with self._changed:
                self._num_inside = 0
                self._changed.notify_all()


@dataclass(frozen=True)
class Limits:
    """Seconds that things may take; see `max_image_s`.

    Attributes:
        image_s: One image in its decoder.
        views: How often the network sees a pixel.
        start_s: Of the network, on top: what its first pictures wait for.
        size_s: Of the network, on top, for each size of pictures.
    """

    image_s: float
    views: float
    start_s: float
    size_s: float

    @staticmethod
    def of_settings(settings: LabelSettings, *, use_gpu: bool) -> "Limits":
        """Return those of a job."""
        views = sum(max(1.0, scale * scale) for scale in settings.scales) * (1 + settings.flip)
        size_s = _COMPILE_S * len(settings.scales) * settings.compiled
        return Limits(settings.max_image_s, views, _GPU_FIRST_S * use_gpu, size_s)

    def network_s(self, pictures: Sequence[NDArray[np.uint8]]) -> float:
        """Return what pictures may take in the network: once for all, and by their pixels."""
        sizes: list[tuple[int, ...]] = [one.shape for one in pictures]
        num_pixels = sum(max(_LEAST_PIXELS, size[0] * size[1]) for size in sizes)
        start_s = self.start_s + self.size_s * len(set(sizes))
        return start_s + self.image_s * (1 + self.views * num_pixels / _MEGAPIXEL)


class Ward:
    """Where a replica decodes and predicts, as each shard needs it."""

    def __init__(self, settings: LabelSettings, *, use_gpu: bool = False) -> None:
        """Take the limits.

        Args:
            settings: What the job was asked to do.
            use_gpu: Whether the network runs on a GPU, which takes its time to start.
        """
        self._limits = Limits.of_settings(settings, use_gpu=use_gpu)
        self._max_pixels = settings.max_image_pixels
        self._gate = Gate()
        self._watchdog = Watchdog(max(_LEAST_LOCK_S, settings.max_image_s))

    @contextmanager
    def treat(self, mark: Mark | None) -> Iterator["Treatment"]:
        """Open what a shard needs, until the block ends.

        Args:
            mark: That this replica has left on it; None where nobody comes after it.
        """
        with ExitStack() as opened:
            opened.enter_context(self._watchdog.awake())
            child: IsolatedDecoder | None = None
            if mark is not None and mark.before:
                child = opened.enter_context(IsolatedDecoder(self._limits.image_s))
            else:
                opened.enter_context(self._gate.together())
            yield Treatment(self._limits, self._max_pixels, self._gate, self._watchdog, mark, child)


@dataclass(frozen=True)
class Treatment:
    """How one shard is decoded and predicted."""

    limits: Limits
    max_pixels: int
    gate: Gate
    watchdog: Watchdog
    mark: Mark | None
    child: IsolatedDecoder | None

    def read_size(self, uri: str, data: bytes) -> tuple[int, int]:
        """As `pipeline.images.decode.read_size`; also raises `crashed` and `too_slow`."""
        if self.child is not None:
            return self.child.call(read_size, data)
        with self.watchdog.limit(uri, self.limits.image_s):
            return read_size(data)

    def decode(self, uri: str, data: bytes) -> NDArray[np.uint8]:
        """As `pipeline.images.decode.decode_image`; also raises `crashed` and `too_slow`."""
        if self.child is not None:
            return self.child.call(decode_image, data, self.max_pixels)
        with self.watchdog.limit(uri, self.limits.image_s):
            return decode_image(data, self.max_pixels)

    def predict(
        self, predict: Predict, image_ids: Sequence[str], pictures: list[NDArray[np.uint8]]
    ) -> "list[Prediction | None]":
        """Run the network on pictures, so that a death tells what it has to.

        Args:
            predict: Lets the network do it, within `network_limit`; not called in its thread.
            image_ids: Of the pictures.
            pictures: RGB, uint8 of shape (H, W, 3) each.
        """
        if self.child is None:  # the gate is passed
            return list(predict(pictures))
        if self.mark is None or len(self.mark.before) < _DEATHS_BEFORE_ALONE:
            with self.gate.together():
                return list(predict(pictures))
        found: list[Prediction | None] = []
        for image_id, picture in zip(image_ids, pictures, strict=True):
            with self.gate.alone():
                self.mark.note(image_id, self.limits.image_s)
                found += predict([picture])
                self.mark.clear()
        return found

    def network_limit(self, pictures: Sequence[NDArray[np.uint8]]) -> AbstractContextManager[None]:
        """Return what ends the process if the network hangs in these pictures."""
        return self.watchdog.limit("the network", self.limits.network_s(pictures))
