"""What a run has cost and what held it back: from the sums over its commits to plain words."""

from collections.abc import Iterator

from pipeline.labelling.cost import STEPS, WorkTotals

_BUSY = 0.85
# Of a shorter run start and end decide.
_TELLING_S = 20.0


def cost_lines(work: WorkTotals, num_images: int, price_per_node_hour: float | None) -> list[str]:
    """Describe what a run has cost, step by step and in all.

    Args:
        work: Sums over its commits.
        num_images: Number of images of the run.
        price_per_node_hour: In any currency; None if it is not known.
    """
    if not work.replica_seconds:
        return []
    total = sum(work.seconds.values()) or 1.0
    return [
        f"{'step':<12}{'seconds':>12}{'share':>8}",
        *(
            f"{step:<12}{work.seconds[step]:>12,.1f}{work.seconds[step] / total:>8.0%}"
            for step in STEPS
        ),
        "(steps of several shards overlap: their seconds are more than the run's)",
        *spent_lines(work, num_images, price_per_node_hour),
    ]


def spent_lines(
    work: WorkTotals, num_images: int, price_per_node_hour: float | None
) -> Iterator[str]:
    """Describe what a run has cost in all. Arguments as `cost_lines`."""
    if not work.replica_seconds:
        return
    yield (
        f"read {work.read_bytes / 1e6:,.1f} MB, written {work.written_bytes / 1e6:,.1f} MB, "
        f"{sum(work.retries.values())} requests made again, {work.backoffs} back-offs for memory"
    )
    if work.work_seconds:
        speed = num_images / work.work_seconds
        yield f"{speed:,.1f} images/s without pauses and start-up"
    yield (
        f"{work.num_replicas} replica(s), whose networks computed {work.busy_share:.0%} of "
        f"{work.replica_seconds:,.0f} s: {verdict(work)}"
    )
    if work.num_lost_replicas:
        yield f"{work.num_lost_replicas} replica(s) died at work and were started anew"
    price = price_per_thousand(work, num_images, price_per_node_hour)
    if price is not None:
        yield (
            f"{work.node_seconds / 3600:.3f} node hours at {price_per_node_hour:g}: {price:.4f} "
            "per thousand images (of each node that did a step, from its first to its last; not "
            "counted are start-up, the head, and nodes without work)"
        )


def price_per_thousand(
    work: WorkTotals, num_images: int, price_per_node_hour: float | None
) -> float | None:
    """Return the price of a thousand images; None without a price or an image."""
    if price_per_node_hour is None or not num_images:
        return None
    return 1000 * price_per_node_hour * work.node_seconds / 3600 / num_images


def verdict(work: WorkTotals) -> str:
    """Say what held the run back and what to change."""
    return next(_verdicts(work))


def _verdicts(work: WorkTotals) -> Iterator[str]:
    seconds = work.seconds
    if work.replica_seconds < _TELLING_S:
        yield "too short to say what holds it back"
    if work.busy_share >= _BUSY:
        yield (
            "the networks hold it back, as it should be; more or faster GPUs, precision=bf16 or a "
            "narrower network make it faster"
        )
    if seconds["network"] >= _BUSY * work.replica_seconds:
        yield (
            "the network is always at work, and its device computes for that share of the time: "
            "it waits for other work on the same CPUs or GPU, or batches are small"
        )
    processor = seconds["decode"] + seconds["encode"]
    transfer = seconds["fetch"] + seconds["write"]
    # A replica has three shards at a time: beside the one on the network, two may be elsewhere.
    if processor > 2 * seconds["network"] and processor >= transfer:
        yield (
            "decoding and encoding hold it back: more cpus_per_replica and threads_per_replica, "
            "or nodes with more cores per GPU"
        )
    if transfer > 2 * seconds["network"]:
        yield (
            "reading and writing hold it back: more io_threads, more CPUs for these tasks, or "
            "nodes nearer to the bucket"
        )
    if work.backoffs:
        yield "memory holds it back: a lower batch_size, or fewer replicas per GPU or node"
    yield (
        "waiting holds it back: too few shards to keep all replicas at work (smaller "
        "max_shard_images, a lower max_replicas), or CPUs that others use"
    )
