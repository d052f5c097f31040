"""Measure: a sample of images, fetched, decoded and labelled as a replica would; for `doctor`.

Called in a process of its own, which a picture that kills or hangs its decoder would end: such
pictures are left out.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from pipeline.errors import ErrorCode, ImageError, InputError
from pipeline.images.decode import decode_image
from pipeline.images.examine import examine_image
from pipeline.images.isolated import IsolatedDecoder
from pipeline.labelling.fetch import Fetch
from pipeline.labelling.replicas import Replicas
from pipeline.labelling.schema import ImageRow, ShardRow
from pipeline.labelling.segment import Segmenter, open_predictor
from pipeline.labelling.session import Job
from pipeline.settings.label import LabelSettings

# A picture of the sample that takes longer is left out, though `label` may have more patience.
_LONGEST_S = 10.0
# What a picture does that `label` finds at the cost of a replica.
_DEADLY = (ErrorCode.CRASHED, ErrorCode.TOO_SLOW)


@dataclass(frozen=True)
class Measured:
    """What a sample has shown, in one worker.

    Attributes:
        num_images: Number of images that were measured.
        num_failed: Of these, without a mask.
        num_deadly: Number of images of the sample that were left out: they kill their decoder.
        num_bytes: Encoded.
        fetch_s: To read them, as many at a time as `io_threads` says.
        decode_s: To decode them, one after the other.
        load_s: To load the network and to label once, which warms it up.
        label_s: To decode, label and encode them, as a replica does.
    """

    num_images: int
    num_failed: int
    num_deadly: int
    num_bytes: int
    fetch_s: float
    decode_s: float
    load_s: float
    label_s: float


def measure(
    job: Job, settings: LabelSettings, replicas: Replicas, images: Sequence[ImageRow]
) -> Measured:
    """Measure what labelling some images takes.

    Args:
        job: Of the network.
        settings: How to label.
        replicas: As which of them.
        images: The sample, as planned.

    Raises:
        InputError: All of them kill or hang their decoder.
    """
    started = time.perf_counter()
    fetched = Fetch(job.storage, settings.max_image_bytes, settings.io_threads).images(images)
    fetch_s = time.perf_counter() - started
    left = harmless(fetched, settings)
    # As if the others had not been there.
    fetch_s *= len(left) / len(fetched)
    decode_s = _decode(left, settings.max_image_pixels)
    started = time.perf_counter()
    load = partial(open_predictor, job.storage, job.network)
    segmenter = Segmenter(load, job.record.classes, settings, replicas.placement)
    segmenter(_shard(left))
    load_s = time.perf_counter() - started
    started = time.perf_counter()
    labelled = segmenter(_shard(left))
    num_ok = sum(image["error_code"] is None for image in labelled["images"])
    return Measured(
        num_images=len(left),
        num_failed=len(left) - num_ok,
        num_deadly=len(fetched) - len(left),
        num_bytes=sum(len(image.get("data") or b"") for image in left),
        fetch_s=fetch_s,
        decode_s=decode_s,
        load_s=load_s,
        label_s=time.perf_counter() - started,
    )


def harmless(images: Sequence[ImageRow], settings: LabelSettings) -> list[ImageRow]:
    """Leave out the pictures that kill or hang their decoder.

    Args:
        images: The images, fetched.
        settings: They limit the time of a decoder.

    Raises:
        InputError: None is left.
    """
    with IsolatedDecoder(min(settings.max_image_s, _LONGEST_S)) as child:
        left = [image for image in images if not _is_deadly(child, image, settings)]
    if not left:
        raise InputError(f"all {len(images)} images of the sample kill or hang their decoder")
    return left


def _is_deadly(child: IsolatedDecoder, image: ImageRow, settings: LabelSettings) -> bool:
    data = image.get("data")
    try:
        if data is not None:
            child.call(examine_image, data, settings.max_image_pixels)
    except ImageError as error:
        return error.code in _DEADLY
    return False


def _decode(images: Sequence[ImageRow], max_pixels: int) -> float:
    started = time.perf_counter()
    for image in images:
        data = image.get("data")
        try:
            if data is not None:
                decode_image(data, max_pixels)
        except ImageError:
            continue  # its row says so later
    return time.perf_counter() - started


def _shard(images: Sequence[ImageRow]) -> ShardRow:
    # The replica takes the bytes out of the rows.
    copies: list[ImageRow] = [{**image} for image in images]
    return ShardRow(shard=0, images=copies)
