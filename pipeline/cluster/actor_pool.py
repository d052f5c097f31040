"""The pool of replicas while a run goes on: told of, and grown on nodes that are added."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ray.util.placement_group import PlacementGroup

from pipeline.cluster.data_context import steps, watch_execution
from pipeline.cluster.nodes import alive_nodes
from pipeline.cluster.packing import Node
from pipeline.cluster.reservation import give_back

_log = logging.getLogger(__name__)

# How often a run looks for nodes that were added.
_GROW_S = 5.0

# Takes the nodes, and the CPUs and GPUs of a replica; returns how many there is room for.
RoomFor = Callable[[Sequence[Node], float, float], int]


def watch_replicas(
    room: PlacementGroup, max_replicas: int, room_for: RoomFor, tasks_for: RoomFor
) -> None:
    """Watch the replicas of what Ray Data does next.

    Args:
        room: Is given back once Ray Data has asked for its replicas.
        max_replicas: More are not started.
        room_for: Counts how many the nodes have room for.
        tasks_for: Counts how many tasks may run at a time, of the step that has a limit.
    """
    watch_execution(partial(_ReplicaWatch, room, max_replicas, room_for, tasks_for))


class _ReplicaWatch:
    """Says how many replicas are at work, and starts more on nodes that are added.

    Ray starts more by itself only where all steps' equal shares of the cluster's CPUs allow it,
    which they do not where replicas have most of them. It has no public way for either: this is an
    `ExecutionCallback` of Ray, called at every step, and the functions below touch its private
    parts.
    """

    def __init__(
        self, room: PlacementGroup, max_replicas: int, room_for: RoomFor, tasks_for: RoomFor
    ) -> None:
        self._room: PlacementGroup | None = room
        self._max_replicas = max_replicas
        self._room_for = room_for
        self._tasks_for = tasks_for
        self._seen: tuple[int, ...] | None = None
        self._looked_at = 0.0

    def on_execution_step(self, executor: Any) -> None:
        for pool in _pools(executor):
            self._release()
            self._tell(*_counts(pool))
            self._grow(pool, executor)

    def _release(self) -> None:
        # The replicas have been asked for by now.
        if self._room is not None:
            give_back(self._room)
            self._room = None

    def _tell(self, *seen: int) -> None:
        # At the end there are none, and none are waited for.
        if seen != self._seen and self._seen is not None and any(seen):
            _log.info("%d replica(s) at work, %d waiting for a node or being loaded", *seen)
        self._seen = seen

    def _grow(self, pool: Any, executor: Any) -> None:
        if time.monotonic() - self._looked_at < _GROW_S:
            return
        self._looked_at = time.monotonic()
        each, nodes = pool.per_actor_resource_usage(), alive_nodes()
        _enlarge(pool, min(self._room_for(nodes, each.cpu, each.gpu), self._max_replicas))
        _allow_tasks(executor, self._tasks_for(nodes, each.cpu, each.gpu))

    def before_execution_starts(self, executor: Any) -> None:
        """Nothing is known before."""

    def after_execution_succeeds(self, executor: Any) -> None:
        """What has ended is said by the job."""

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """What has failed is said by the job."""


def _pools(executor: Any) -> Iterator[Any]:
    """List the pools of actors that an execution has; nothing public leads to them."""
    for operator in steps(executor):
        yield from operator.get_autoscaling_actor_pools()


def _counts(pool: Any) -> tuple[int, int]:
    """Count the actors of a pool: at work, and not yet; Ray shows them in its progress bars."""
    info = pool.get_actor_info()
    return info.running, info.pending + info.restarting


def _enlarge(pool: Any, number: int) -> None:
    """Let a pool have a number of actors, if it has less: Ray reads its bounds at every step.

    Its own scaling up by requests is bounded by what it was begun with.
    """
    config = pool._config  # noqa: SLF001 - there is no setter
    if number > config.min_size:
        bounds = dict.fromkeys(("min_size", "max_size", "initial_size"), number)
        pool._config = replace(config, **bounds)  # noqa: SLF001 - as above


def _allow_tasks(executor: Any, number: int) -> None:
    """Let the step that has a limit run a number of tasks at a time, if it may run less.

    Ray's policies read the limits when a dataset begins; its budgets read them at every step.
    """
    for policy in executor._backpressure_policies:  # noqa: SLF001 - there is no setter
        limits: dict[Any, float] = getattr(policy, "_concurrency_caps", {})
        for operator, limit in limits.items():
            if limit < number:
                limits[operator] = operator._max_concurrency = number  # noqa: SLF001 - as above
