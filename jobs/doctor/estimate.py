"""Estimate: a sample of images, labelled as a replica would, and what follows for all of them."""

from pipeline.cluster.nodes import NoRoom, ProcessFailed, alive_nodes, ask_one_process
from pipeline.labelling.finding import Finding, change, note, ok
from pipeline.labelling.measure import Measured, measure
from pipeline.labelling.replicas import FETCH_CPUS, Replicas
from pipeline.labelling.runs import read_shard
from pipeline.labelling.schema import ImageRow
from pipeline.labelling.session import Found, Job
from pipeline.settings.cluster import DoctorSettings

# A replica that has to wait for a node that is being started.
_WAIT_S = 600.0


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
            *(measure, job, settings, replicas, images),
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
