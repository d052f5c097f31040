"""The pool of replicas on a cluster: room is waited for, and more replicas join as nodes do."""

from collections.abc import Sequence

from pipeline.cluster.actor_pool import watch_replicas
from pipeline.cluster.nodes import alive_nodes
from pipeline.cluster.packing import Node
from pipeline.cluster.reservation import wait_for_room
from pipeline.labelling.replicas import BESIDE_CPUS, choose_replicas, fetches_for, room_for
from pipeline.settings.label import LabelSettings


def wait_for_replicas(settings: LabelSettings, num_shards: int, num_groups: int) -> None:
    """Wait until a cluster, if it is one, has room for the replicas that a run begins with.

    Args:
        settings: What the job was asked to do.
        num_shards: To do.
        num_groups: In which they are fetched.

    Raises:
        WaitedTooLong: It has had none for `max_wait_minutes`.
    """
    if settings.ray_address is None:
        return
    number = min(settings.min_replicas, num_shards)
    each = choose_replicas(settings, alive_nodes(), number).resources
    room = wait_for_room(number, "replica(s)", each, {"CPU": BESIDE_CPUS}, settings)
    most = min(settings.max_replicas or num_shards, num_shards)

    def fetches(nodes: Sequence[Node], num_cpus: float, num_gpus: float) -> int:
        return min(fetches_for(nodes, num_cpus, num_gpus), num_groups)

    watch_replicas(room, most, room_for, fetches)
