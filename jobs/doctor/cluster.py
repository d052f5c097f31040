"""The cluster: what each node can reach and hold, and whether the replicas fit."""

from collections.abc import Sequence

from pipeline.cluster.nodes import alive_nodes, ask_every_node
from pipeline.cluster.packing import Node
from pipeline.errors import SettingError
from pipeline.labelling.finding import Finding, change, note, ok
from pipeline.labelling.places import Places
from pipeline.labelling.preflight import check_nodes, check_room, see
from pipeline.labelling.replicas import Replicas, choose_replicas
from pipeline.settings.label import LabelSettings


def check_cluster(
    settings: LabelSettings, places: Places, before: Sequence[Finding]
) -> tuple[Replicas | None, list[Finding]]:
    """Look at the cluster that this process is connected to.

    Args:
        settings: What the job was asked to do.
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


def _sum_up(nodes: Sequence[Node]) -> Finding:
    cpus, gpus = sum(node.num_cpus for node in nodes), sum(node.num_gpus for node in nodes)
    return ok("cluster", f"{len(nodes)} node(s), {cpus:g} CPU, {gpus:g} GPU")


def _check_replicas(
    settings: LabelSettings, nodes: Sequence[Node]
) -> tuple[Replicas | None, Finding]:
    # With an address a cluster that is too small is only warned of: it may grow.
    exactly = settings.model_copy(update={"ray_address": None})
    has_gpu = any(node.num_gpus for node in nodes)
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
