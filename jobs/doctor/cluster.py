"""The cluster: what each node can reach and hold, and whether the replicas fit."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from jobs.doctor.finding import Finding, Level, change, note, ok
from jobs.doctor.places import Places, look
from pipeline.cluster.nodes import (
    VERSIONS_REMEDY,
    Answers,
    alive_nodes,
    ask_every_node,
    differing,
    node_name,
    session_folder,
)
from pipeline.errors import SettingError
from pipeline.labelling.replicas import Replicas, choose_replicas
from pipeline.settings.label import LabelSettings
from pipeline.versions import versions

_HERE = "the node"
_GIB = float(1 << 30)
# Of each replica: the shards in its three calls, encoded and as masks, and the next ones.
_SHARDS_PER_REPLICA = 8
# Ray makes no more objects on a disk that is fuller (RAY_local_fs_capacity_threshold).
_FULL = 0.95


@dataclass(frozen=True)
class Seen:
    """What one node has seen: the places, its versions, and the disk that Ray spills to."""

    places: list[Finding]
    versions: dict[str, str]
    disk_total: int
    disk_free: int


def check_cluster(
    settings: LabelSettings, places: Places, before: Sequence[Finding]
) -> tuple[Replicas | None, list[Finding]]:
    """Look at the cluster that this process is connected to.

    Args:
        settings: Of the job.
        places: What each node is to look at.
        before: What the driver has found, which need not be said again of a node.

    Returns:
        The replicas that it would get, None if they do not fit; and the findings.
    """
    nodes = alive_nodes()
    answers = ask_every_node(see, places)
    replicas, gpus = _check_replicas(settings, nodes)
    room = list(check_room(nodes, answers, settings.max_shard_bytes, replicas))
    findings = [_sum_up(nodes), *check_nodes(answers, before), gpus, *room]
    return replicas, findings


def see(places: Places) -> Seen:
    """Look at the places, the versions and the disk, in a worker on a node."""
    disk = shutil.disk_usage(session_folder())
    return Seen(look(places, _HERE), versions(), disk.total, disk.free)


def _sum_up(nodes: Sequence[Mapping[str, Any]]) -> Finding:
    sums = {
        name: sum(node["Resources"].get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")
    }
    return ok("cluster", f"{len(nodes)} node(s), {sums['CPU']:g} CPU, {sums['GPU']:g} GPU")


def check_nodes(answers: Answers, before: Sequence[Finding]) -> Iterator[Finding]:
    """Compare what nodes have seen with what they must see.

    Args:
        answers: Of `see`.
        before: What the driver has found, which need not be said again of a node.
    """
    for name, reason in answers.failed.items():
        remedy = "install the same fcn-pipeline there, or submit with --working-dir"
        yield change(f"node {name}", reason, remedy)
    yield from _check_places(answers, {finding.found for finding in before})
    different = differing(Answers({n: seen.versions for n, seen in answers.given.items()}, {}))
    for found in different:
        yield change("versions", found, VERSIONS_REMEDY)
    if not different:
        found = ", ".join(f"{name} {version}" for name, version in versions().items())
        yield ok("versions", f"the same on {len(answers.given)} node(s): {found}")


def _check_places(answers: Answers, said: AbstractSet[str]) -> Iterator[Finding]:
    wrong = [
        Finding(one.subject.replace(_HERE, f"node {name}"), one.level, one.found, one.remedy)
        for name, seen in answers.given.items()
        for one in seen.places
        if one.level is Level.CHANGE
    ]
    yield from (finding for finding in wrong if finding.found not in said)
    if answers.given and not wrong:
        yield ok("rights of the nodes", f"{len(answers.given)} node(s) read input and write output")


def _check_replicas(
    settings: LabelSettings, nodes: Sequence[dict[str, Any]]
) -> tuple[Replicas | None, Finding]:
    # With an address a cluster that is too small is only warned of: it may grow.
    exactly = settings.model_copy(update={"ray_address": None})
    has_gpu = any(node["Resources"].get("GPU") for node in nodes)
    if settings.gpus_per_replica and not has_gpu:
        return None, change(
            "GPU",
            f"gpus_per_replica={settings.gpus_per_replica:g}, and no node has a GPU that Ray knows",
            "start a node with a GPU (and its driver; see `ray status`), or leave gpus_per_replica "
            "out to label on CPUs; a cluster that grows on demand may be right as it is",
        )
    try:
        replicas = choose_replicas(exactly, nodes, 1 << 30)
    except SettingError as error:
        return None, change("replicas", str(error), "start more or larger nodes")
    if not has_gpu:
        return replicas, note("GPU", f"none: {replicas}", "GPUs are many times as fast")
    return replicas, ok("GPU", str(replicas))


def check_room(
    nodes: Sequence[Mapping[str, Any]],
    answers: Answers,
    shard_bytes: int,
    replicas: Replicas | None,
) -> Iterator[Finding]:
    """Compare object store and disk with what lies in them at a time.

    Args:
        nodes: As `ray.nodes()` lists them.
        answers: Of `see`.
        shard_bytes: Of the largest shard, encoded.
        replicas: Of the job; None if they are not known.
    """
    per_node = -(-replicas.number // len(nodes)) if replicas else 1
    needed = shard_bytes * _SHARDS_PER_REPLICA * per_node
    before = "object store and disk"
    for node in nodes:
        name, store = node_name(node), int(node["Resources"].get("object_store_memory", 0))
        if name not in answers.given:
            continue
        seen = answers.given[name]
        found = (
            f"node {name}: store {store / _GIB:.1f} GiB, disk {seen.disk_free / _GIB:.1f} of "
            f"{seen.disk_total / _GIB:.1f} GiB free; {needed / _GIB:.1f} GiB of shards are in it "
            "at a time"
        )
        if store < 2 * shard_bytes or seen.disk_free < (1 - _FULL) * seen.disk_total:
            yield change(before, found, "lower max_shard_bytes, or give the node more of both")
        elif store < needed:
            yield note(before, found, "lower max_shard_bytes, or Ray moves objects to the disk")
        else:
            yield ok(before, found)
