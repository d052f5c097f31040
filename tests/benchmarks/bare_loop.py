"""The Predictor alone, in its own process: what the pipeline is measured against."""

import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path

from fcn.weights.classes import numbered_classes
from fcn.weights.record import Checkpoint
from pipeline.images.decode import decode_image
from tests.benchmarks.processes import machine_cpu_s

_NUM_CLASSES = 21
_WARM_UP_IMAGES = 16
_MAX_PIXELS = 1 << 30
# Ray starts its workers with this niceness (RAY_worker_niceness).
_WORKER_NICENESS = 15


@dataclass(frozen=True)
class Rate:
    """One measurement.

    Attributes:
        images_per_s: Speed.
        cpu_s_per_image: CPU seconds per image, per role.
        others: CPU cores that other processes of the machine kept busy meanwhile.
    """

    images_per_s: float
    cpu_s_per_image: dict[str, float]
    others: float


def measure_bare_loop(photos: Path, width: int, batch_size: int, threads: int) -> Rate:
    """Measure the loop in a new process.

    Args:
        photos: Folder of images; all are decoded before the clock starts.
        width: Of the network.
        batch_size: Images of one size that go through the network together.
        threads: Of the network.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_loop, (photos, width, batch_size, threads))


def _loop(photos: Path, width: int, batch_size: int, threads: int) -> Rate:
    # Only this process needs torch.
    from fcn.inference.predictor import Predictor  # noqa: PLC0415
    from fcn.weights.files import random_network  # noqa: PLC0415

    os.nice(_WORKER_NICENESS)
    classes = numbered_classes(_NUM_CLASSES)
    record = Checkpoint("fcn_all_skips", classes, width, weights_sha256="random:0")
    network = random_network(record, 0)
    predictor = Predictor(network, record, batch_size=batch_size, num_threads=threads)
    paths = sorted(photos.rglob("*.jpg"))
    images = [decode_image(path.read_bytes(), _MAX_PIXELS) for path in paths]
    predictor.predict(images[:_WARM_UP_IMAGES])
    start, own, machine = time.perf_counter(), time.process_time(), machine_cpu_s()
    for first in range(0, len(images), batch_size):
        predictor.predict(images[first : first + batch_size])
    seconds = time.perf_counter() - start
    own = time.process_time() - own
    others = (machine_cpu_s() - machine - own) / seconds
    return Rate(len(images) / seconds, {"replica": own / len(images)}, others)
