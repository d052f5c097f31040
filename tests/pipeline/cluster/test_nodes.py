"""What is known of the nodes of a real Ray."""

import socket

from pipeline.cluster.connect import connect
from pipeline.cluster.nodes import alive_nodes


def test_a_node_that_is_up_is_known_with_what_it_has(ray_session: str):
    """Its CPUs, its object store, Ray's name of it, and one by which a person finds it."""
    connect(ray_session)

    [node] = alive_nodes()

    assert node.num_cpus > 0
    assert node.num_gpus == 0
    assert node.gpu_kinds == []
    assert node.object_store_bytes > 1 << 20
    assert node.node_id.startswith(node.name.rpartition(" ")[2].rstrip(")"))
    assert node.name.startswith(f"{socket.gethostname()} (")
