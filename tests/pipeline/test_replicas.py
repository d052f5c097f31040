"""Replicas fit their cluster, and what can't fit is said instead of waited for."""

import logging
from typing import Any

import pytest

from pipeline.config import LabelSettings
from pipeline.errors import SettingError
from pipeline.replicas import choose_replicas

_GIB = 1 << 30


def node(cpus: float, gpus: float = 0, *, alive: bool = True) -> dict[str, Any]:
    resources = {"CPU": cpus, "memory": 8.0 * _GIB, **({"GPU": gpus} if gpus else {})}
    return {"Alive": alive, "Resources": resources}


def choose(nodes: list[dict[str, Any]], num_shards: int = 1000, **fields: Any) -> Any:
    settings = LabelSettings(input="in", output="out", weights="random:0", **fields)
    return choose_replicas(settings, nodes, num_shards)


@pytest.mark.parametrize(
    ("nodes", "number", "num_cpus", "num_gpus", "threads"),
    [
        ([node(2)], 1, 1, 0, 2),
        ([node(4)], 1, 3, 0, 4),
        ([node(64)], 15, 4, 0, 4),
        ([node(2), node(64), node(64)], 30, 4, 0, 4),
        ([node(0), node(8, 1), node(8, 1)], 2, 4, 1, 8),
        ([node(16, 4), node(32)], 4, 3.75, 1, 4),
        ([node(8), node(8, alive=False)], 1, 4, 0, 8),
    ],
)
def test_the_default_fills_the_nodes(
    nodes: list[dict[str, Any]], number: int, num_cpus: float, num_gpus: float, threads: int
):
    """Each GPU gets a replica, without GPUs each four CPUs; a CPU per node is left for reading."""
    found = choose(nodes)

    assert (found.number, found.num_cpus, found.num_gpus) == (number, num_cpus, num_gpus)
    assert found.placement.threads == threads


def test_replicas_share_a_node():
    """Two replicas on one machine get half of its cores and memory each."""
    found = choose([node(2)], num_replicas=2)

    assert (found.number, found.num_cpus, found.placement.threads) == (2, 0.5, 1)
    assert found.placement.memory_bytes == 4 * _GIB


def test_there_are_no_more_replicas_than_shards():
    """A small run starts no replica that would have nothing to do."""
    assert choose([node(64)], num_shards=3).number == 3


@pytest.mark.parametrize(
    "fields",
    [{"num_replicas": 2, "cpus_per_replica": 1}, {"cpus_per_replica": 2}, {"gpus_per_replica": 1}],
)
def test_what_does_not_fit_this_machine_is_refused(fields: dict[str, Any]):
    """On a machine of two cores the impossible is an error that says what to lower."""
    with pytest.raises(SettingError, match="lower num_replicas, cpus_per_replica or gpus_per_rep"):
        choose([node(2)], **fields)


@pytest.mark.parametrize("nodes", [[node(0)], [node(4), node(4)]])
def test_a_cluster_may_grow(nodes: list[dict[str, Any]], caplog: pytest.LogCaptureFixture):
    """On a cluster that lacks the GPUs by now the job waits for them, and says so."""
    with caplog.at_level(logging.WARNING):
        found = choose(nodes, ray_address="auto", gpus_per_replica=1, num_replicas=3)

    assert (found.number, found.num_gpus) == (3, 1)
    assert "wait for the cluster to grow" in caplog.text
