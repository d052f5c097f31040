"""Replicas fit their cluster, and what can't fit is said instead of waited for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.cluster.packing import Node, num_of_gpu
from pipeline.errors import SettingError
from pipeline.labelling.replicas import FETCH_CPUS, WRITE_CPUS, choose_replicas, room_for
from pipeline.settings.label import LabelSettings

_GIB = 1 << 30


def node(cpus: float, gpus: float = 0) -> Node:
    return Node({"CPU": cpus, "memory": 8.0 * _GIB, **({"GPU": gpus} if gpus else {})})


def choose(nodes: list[Node], num_shards: int = 1000, **fields: Any) -> Any:
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
    ],
)
def test_the_default_fills_the_nodes(
    nodes: list[Node], number: int, num_cpus: float, num_gpus: float, threads: int
):
    """Each GPU gets a replica, without GPUs each four CPUs; a CPU per node is left for reading."""
    found = choose(nodes)

    assert (found.number, found.num_cpus, found.num_gpus) == (number, num_cpus, num_gpus)
    assert found.placement.threads == threads


@pytest.mark.parametrize(
    ("nodes", "number"),
    [
        ([node(2)], 2),
        ([node(4)], 2),
        ([node(64)], 8),
        ([node(0), node(16, 1)], 26),
        ([node(64), node(64)], 16),
    ],
)
def test_each_fetch_leaves_room_for_a_write(nodes: list[Node], number: int):
    """Beside the replicas' CPUs those of as many fetches and writes have room."""
    found = choose(nodes)

    assert found.num_fetches == number
    left = sum(one.num_cpus for one in nodes) - found.number * found.num_cpus
    assert number * (FETCH_CPUS + WRITE_CPUS) <= left


def test_there_is_a_fetch_where_replicas_take_all():
    """A cluster that has still to grow is asked for one fetch, and not for none."""
    assert choose([node(0)], ray_address="auto", max_replicas=4).num_fetches == 1


def test_replicas_share_a_node():
    """Two replicas on one machine get half of its cores and memory each."""
    found = choose([node(2)], min_replicas=2)

    assert (found.number, found.num_cpus, found.placement.threads) == (2, 0.52, 1)
    assert found.placement.memory_bytes == 4 * _GIB


def test_there_are_no_more_replicas_than_shards():
    """A small run starts no replica that would have nothing to do."""
    assert choose([node(64)], num_shards=3).number == 3


@pytest.mark.parametrize(
    "fields",
    [{"min_replicas": 2, "cpus_per_replica": 1}, {"cpus_per_replica": 2}, {"gpus_per_replica": 1}],
)
def test_what_does_not_fit_this_machine_is_refused(fields: dict[str, Any]):
    """On a machine of two cores the impossible is an error that says what to lower."""
    with pytest.raises(SettingError, match="lower min_replicas, cpus_per_replica or gpus_per_rep"):
        choose([node(2)], **fields)


@pytest.mark.parametrize("nodes", [[node(0)], [node(4), node(4)]])
def test_a_cluster_may_grow(nodes: list[Node]):
    """On a cluster that lacks the GPUs by now the job asks for what it needs."""
    found = choose(nodes, ray_address="auto", gpus_per_replica=1, min_replicas=3)

    assert (found.number, found.num_gpus) == (3, 1)


@pytest.mark.parametrize(
    ("fields", "number"),
    [({}, 2), ({"max_replicas": 5}, 5), ({"max_replicas": 1}, 1), ({"min_replicas": 4}, 4)],
)
def test_a_cluster_is_asked_for_max_replicas(fields: dict[str, Any], number: int):
    """Without max_replicas what is there is used; with it, Ray is asked for all of them."""
    assert choose([node(2), node(2)], ray_address="auto", **fields).number == number


@given(
    sizes=st.lists(st.tuples(st.integers(0, 128), st.integers(0, 8)), min_size=1, max_size=4),
    cpus=st.one_of(st.none(), st.integers(1, 96)),
    gpus=st.one_of(st.none(), st.sampled_from([0.25, 0.4, 0.5, 0.6, 1])),
    number=st.integers(1, 4),
)
def test_replicas_never_take_all_cpus_of_a_node(
    sizes: list[tuple[int, int]], cpus: int | None, gpus: float | None, number: int
):
    """However many replicas Ray puts on a node when others die, reading and writing have room.

    A node that holds one replica at most is not counted as room if that one would fill it. What is
    asked for without max_replicas is what there is room for.
    """
    nodes = [node(*size) for size in sizes]
    fields = {"cpus_per_replica": cpus, "gpus_per_replica": gpus, "min_replicas": number}
    found = choose(nodes, ray_address="auto", **fields)
    fits = [room_for([one], found.num_cpus, found.num_gpus) for one in nodes]

    for (num_cpus, num_gpus), fit in zip(sizes, fits, strict=True):
        by_gpu = num_of_gpu({"GPU": num_gpus}, found.num_gpus) if found.num_gpus else 1000
        possible = min(int(num_cpus / found.num_cpus + 1e-6), by_gpu)
        assert possible <= 1 or possible == fit
        assert not fit or num_cpus - fit * found.num_cpus >= 0.45 - 1e-6
    assert found.number == max(number, sum(fits)) or sum(fits) == 0


@given(cores=st.integers(2, 128), data=st.data())
def test_one_machine_never_gives_all_its_cores_to_replicas(cores: int, data: st.DataObject):
    """What is asked for is refused, or leaves reading and writing their part of a core."""
    cpus = data.draw(st.one_of(st.none(), st.integers(1, cores)))
    try:
        found = choose([node(cores)], cpus_per_replica=cpus)
    except SettingError:
        assert (cpus or 0) > cores - 0.45
    else:
        assert found.number * found.num_cpus <= cores - 0.45 + 1e-6


def test_fractions_of_gpus_are_of_one_gpu():
    """Of two GPUs Ray gives 0.4 four times, not five times; more than one GPU in whole ones."""
    assert room_for([node(64, 2)], 1, 0.4) == 4
    assert room_for([node(64, 8)], 1, 0.6) == 8
    assert room_for([node(64, 8)], 1, 0.1) == 63
    assert room_for([node(64, 8)], 1, 2) == 4


def test_one_machine_gets_what_it_has_room_for():
    """Where nothing can grow, max_replicas is a bound only."""
    assert choose([node(64)], max_replicas=3).number == 3
    assert choose([node(2)], max_replicas=3).number == 1


def test_room_is_counted_as_replicas_are():
    """What the pool grows to when nodes are added is what it would have begun with."""
    nodes = [node(0), node(5), node(61), node(16, 4)]

    assert room_for(nodes, 4, 0) == 1 + 15 + 3
    assert room_for(nodes, 4, 1) == 3


@pytest.mark.parametrize(
    ("cpus", "number", "memory"), [((5, 61), 16, 8 / 15), ((5, 61), 8, 8 / 7), ((5, 5), 1, 8)]
)
def test_replicas_share_the_memory_of_uneven_nodes(
    cpus: tuple[float, ...], number: int, memory: float
):
    """Each gets what the fullest node has for one."""
    nodes = [node(one) for one in cpus]
    found = choose(nodes, ray_address="auto", cpus_per_replica=4, max_replicas=number)

    assert found.number == number
    assert found.placement.memory_bytes == pytest.approx(memory * _GIB, abs=1)


@pytest.mark.parametrize(("gpus", "share"), [(None, 1.0), (1, 1.0), (0.5, 0.5), (0.25, 0.25)])
def test_a_part_of_a_gpu_is_a_part_of_its_memory(gpus: float | None, share: float):
    """Replicas that share a GPU share its memory as Ray shares out the GPU."""
    assert choose([node(64, 2)], gpus_per_replica=gpus).placement.gpu_share == share
    assert choose([node(64)], gpus_per_replica=0.0).placement.gpu_share == 1.0


def test_a_replica_uses_one_gpu():
    """More than one GPU per replica is refused, since the others would stand idle."""
    with pytest.raises(ValidationError, match="gpus_per_replica=2: a replica uses one GPU"):
        choose([node(64, 2)], gpus_per_replica=2)


def test_the_arithmetic_of_gpus_needs_them():
    """Replicas without a GPU refuse precision=tf32, and no other precision."""
    for fields in ({}, {"gpus_per_replica": 0.0}):
        with pytest.raises(SettingError, match="tf32 is an arithmetic of GPUs"):
            choose([node(8)], precision="tf32", **fields)
    assert choose([node(8, 1)], precision="tf32").num_gpus == 1
    assert choose([node(8)], precision="bf16").num_gpus == 0
