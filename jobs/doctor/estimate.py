"""Estimate: a sample of images, labelled as a replica would, and what follows for all of them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from pipeline.cluster.nodes import NoRoom, ProcessFailed, alive_nodes, ask_one_process
from pipeline.errors import ErrorCode, ImageError, InputError
from pipeline.images.decode import decode_image
from pipeline.images.examine import examine_image
from pipeline.images.isolated import IsolatedDecoder
from pipeline.labelling.fetch import Fetch
from pipeline.labelling.finding import Finding, change, note, ok
from pipeline.labelling.replicas import FETCH_CPUS, Replicas
from pipeline.labelling.runs import read_shard
from pipeline.labelling.schema import ImageRow, ShardRow
from pipeline.labelling.segment import Segmenter, open_predictor
from pipeline.labelling.session import Found, Job
from pipeline.settings.cluster import DoctorSettings

# A replica that has to wait for a node that is being started.
_WAIT_S = 600.0
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


def estimate(settings: DoctorSettings, job: Job, found: Found, replicas: Replicas) -> list[Finding]:
    """Label a sample where a replica would run, and reckon.

    Args:
        settings: With the size of the sample.
        job: Of the network.
        found: What there is to do.
        replicas: That the cluster gets.
    """
    num_images, images = _to_do(job, found, settings.sample)
    if not images:
        return [ok("to do", "nothing: all images are done")]
    try:
        measured = ask_one_process(
            *(_measure, job, settings, replicas, images),
            num_cpus=replicas.num_cpus,
            num_gpus=replicas.num_gpus,
            timeout_s=_WAIT_S,
        )
    except NoRoom:
        remedy = "see `ray status` for what it waits for"
        return [note("estimate", f"no room for a replica within {_WAIT_S:.0f} s", remedy)]
    except ProcessFailed as error:
        remedy = "run label on one of the images for the whole story"
        return [change("sample", f"labelling {len(images)} images failed: {error}", remedy)]
    return [*_speeds(measured), _reckon(measured, num_images, replicas, settings)]


def _to_do(job: Job, found: Found, sample: int) -> tuple[int, list[ImageRow]]:
    """Count the images to do, and pick some of them, evenly spread."""
    if found.run is not None:
        todo = found.run.missing()
        rows = read_shard(job.storage, todo[0]) if todo else []
        return todo.num_images, rows[:sample]
    assert found.draft is not None, "either a run or a draft"
    return found.draft.num_images, found.draft.sample(sample)


def _measure(
    job: Job, settings: DoctorSettings, replicas: Replicas, images: Sequence[ImageRow]
) -> Measured:
    started = time.perf_counter()
    fetched = Fetch(job.storage, settings.max_image_bytes, settings.io_threads).images(images)
    fetch_s = time.perf_counter() - started
    harmless = _harmless(fetched, settings)
    # As if the others had not been there.
    fetch_s *= len(harmless) / len(fetched)
    decode_s = _decode(harmless, settings.max_image_pixels)
    started = time.perf_counter()
    load = partial(open_predictor, job.storage, job.network)
    segmenter = Segmenter(load, job.record.classes, settings, replicas.placement)
    segmenter(_shard(harmless))
    load_s = time.perf_counter() - started
    started = time.perf_counter()
    labelled = segmenter(_shard(harmless))
    num_ok = sum(image["error_code"] is None for image in labelled["images"])
    return Measured(
        num_images=len(harmless),
        num_failed=len(harmless) - num_ok,
        num_deadly=len(fetched) - len(harmless),
        num_bytes=sum(len(image.get("data") or b"") for image in harmless),
        fetch_s=fetch_s,
        decode_s=decode_s,
        load_s=load_s,
        label_s=time.perf_counter() - started,
    )


def _harmless(images: Sequence[ImageRow], settings: DoctorSettings) -> list[ImageRow]:
    """Leave out the pictures that end their decoder: here they would end the measurement."""
    with IsolatedDecoder(min(settings.max_image_s, _LONGEST_S)) as child:
        left = [image for image in images if not _is_deadly(child, image, settings)]
    if not left:
        raise InputError(f"all {len(images)} images of the sample kill or hang their decoder")
    return left


def _is_deadly(child: IsolatedDecoder, image: ImageRow, settings: DoctorSettings) -> bool:
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


def _speeds(measured: Measured) -> list[Finding]:
    number = measured.num_images
    found = (
        f"{number} images of {measured.num_bytes / number / 1e3:,.0f} kB on average: fetched at "
        f"{number / measured.fetch_s:.1f}/s per task, decoded at {number / measured.decode_s:.1f}"
        f"/s per core, labelled at {number / measured.label_s:.1f}/s per replica (network loaded "
        f"in {measured.load_s:.1f} s)"
    )
    without = measured.num_failed + measured.num_deadly
    if without:
        failed = f"{without} of {number + measured.num_deadly}; measured: {found}"
        remedy = "max_error_rate decides whether that is too many; label says of each why"
        return [note("sample", f"without a mask: {failed}", remedy)]
    return [ok("sample", found)]


def _reckon(
    measured: Measured, num_images: int, replicas: Replicas, settings: DoctorSettings
) -> Finding:
    nodes = alive_nodes()
    num_cpus = sum(node.num_cpus for node in nodes)
    free = max(FETCH_CPUS, num_cpus - replicas.number * replicas.num_cpus)
    labelling = replicas.number * measured.num_images / measured.label_s
    reading = free / FETCH_CPUS / 2 * measured.num_images / measured.fetch_s
    seconds = num_images / min(labelling, reading) + measured.load_s
    bound = "the network" if labelling <= reading else "reading"
    found = (
        f"{num_images:,} images: about {_duration(seconds)} at {min(labelling, reading):,.1f}/s "
        f"on {len(nodes)} node(s), {replicas.number} replica(s); {bound} is slowest, start excluded"
    )
    price = settings.price_per_node_hour
    if price is None:
        return ok("estimate", f"{found}; price_per_node_hour gives a cost")
    cost = seconds / 3600 * len(nodes) * price
    per_thousand = 1000 * cost / num_images
    return ok("estimate", f"{found}; {cost:,.2f} in all, {per_thousand:,.4f} per 1,000 images")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
