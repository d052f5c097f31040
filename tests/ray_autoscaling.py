"""A cluster that grows: Ray's own autoscaler, with nodes that are processes of this machine.

The head has no CPUs, as in infra/kuberay; the autoscaler starts a node of two CPUs for whoever asks
for it, up to two of them. The nodes are children of the head's processes, and end with it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray._private.services import get_node_ip_address

from tests.ray_nodes import Head, ray_head

_HEAD_ID = "f" * 51 + "00000"
_PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
_ENVIRON = {
    "RAY_FAKE_CLUSTER": "1",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": _HEAD_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD_ID,
}


@contextmanager
def growing_cluster(folder: Path) -> Iterator[Head]:
    """Run a head that starts nodes on demand until the block ends.

    Args:
        folder: Of the autoscaler's configuration.
    """
    # With an autoscaler Ray binds to the machine's own address, whatever it is told.
    host, file = get_node_ip_address(), folder / "autoscaling.json"

    def flags(head: Head) -> list[str]:
        file.write_text(json.dumps(_config(head.address)))
        return [f"--autoscaling-config={file}"]

    with ray_head(dashboard=False, num_cpus=0, host=host, more_flags=flags, **_ENVIRON) as head:
        yield head


def _config(gcs_address: str) -> dict[str, object]:
    commands = ("initialization", "setup", "head_setup", "worker_setup")
    starts = ("head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "growing",
        "max_workers": 2,
        "idle_timeout_minutes": 1,
        "provider": {
            # Ray's own provider for tests; by its short name it looks for a file that wheels lack.
            "type": "external",
            "module": _PROVIDER,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "launch_multiple": True,
            "head_node_id": _HEAD_ID,
            "gcs_address": gcs_address,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": {"CPU": 2, "object_store_memory": 300_000_000},
                "node_config": {},
                "min_workers": 0,
                "max_workers": 2,
            },
        },
        **{f"{name}_commands": [] for name in (*commands, *starts)},
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter")},
    }
