"""The pool of replicas while a run goes on: told of, and grown on nodes that are added."""

import logging
import time
from dataclasses import replace
from functools import partial
from typing import Any

import ray.data
from ray.util.placement_group import PlacementGroup, remove_placement_group

from pipeline.cluster.nodes import alive_nodes
from pipeline.labelling.replicas import room_for

_log = logging.getLogger(__name__)

# How often a run looks for nodes that were added.
_GROW_S = 5.0


def watch_replicas(room: PlacementGroup, max_replicas: int) -> None:
    """Watch the replicas of what Ray Data does next.

    Args:
        room: Is given back once Ray Data has asked for its replicas.
        max_replicas: More are not started.
    """
    # Ray types the list as one of classes; it calls what is in there.
    watch: Any = partial(_ReplicaWatch, room, max_replicas)
    ray.data.DataContext.get_current().custom_execution_callback_classes = [watch]


class _ReplicaWatch:
    """Says how many replicas are at work, and starts more on nodes that are added.

    Ray starts more by itself only where all steps' equal shares of the cluster's CPUs allow it,
    which they do not where replicas have most of them. It has no public way for either: this is an
    `ExecutionCallback` of Ray, called at every step.
    """

    def __init__(self, room: PlacementGroup, max_replicas: int) -> None:
        self._room: PlacementGroup | None = room
        self._max_replicas = max_replicas
        self._seen: tuple[int, int] | None = None
        self._looked_at = 0.0

    def on_execution_step(self, executor: Any) -> None:
        for operator in executor._topology:  # noqa: SLF001 - as above
            for pool in operator.get_autoscaling_actor_pools():
                self._release()
                self._tell(pool.get_actor_info())
                self._grow(pool)

    def _release(self) -> None:
        # The replicas have been asked for by now.
        if self._room is not None:
            remove_placement_group(self._room)
            self._room = None

    def _tell(self, pool: Any) -> None:
        seen = pool.running, pool.pending + pool.restarting
        # At the end there are none, and none are waited for.
        if seen != self._seen and self._seen is not None and any(seen):
            _log.info("%d replica(s) at work, %d waiting for a node or being loaded", *seen)
        self._seen = seen

    def _grow(self, pool: Any) -> None:
        if time.monotonic() - self._looked_at < _GROW_S:
            return
        self._looked_at = time.monotonic()
        each, config = pool.per_actor_resource_usage(), pool._config  # noqa: SLF001 - as above
        number = min(room_for(alive_nodes(), each.cpu, each.gpu), self._max_replicas)
        if number > config.min_size:
            bounds = dict.fromkeys(("min_size", "max_size", "initial_size"), number)
            pool._config = replace(config, **bounds)  # noqa: SLF001 - as above

    def before_execution_starts(self, executor: Any) -> None:
        """Nothing is known before."""

    def after_execution_succeeds(self, executor: Any) -> None:
        """What has ended is said by the job."""

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """What has failed is said by the job."""
