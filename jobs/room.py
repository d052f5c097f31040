"""Room for replicas: waited for before the work begins, and watched while it goes on."""

import logging
import sys
import time
from dataclasses import replace
from functools import partial
from typing import Any

import ray
import ray.data
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from jobs.nodes import alive_nodes
from pipeline.config import LabelSettings
from pipeline.errors import WaitedTooLong
from pipeline.replicas import FETCH_CPUS, WRITE_CPUS, Replicas, choose_replicas, room_for

_log = logging.getLogger(__name__)

# How often a wait looks whether it is over; Ray is asked, not the store.
_LOOK_S = 1.0
# How often a run looks for nodes that were added.
_GROW_S = 5.0


def wait_for_room(settings: LabelSettings) -> None:
    """Wait until a cluster has room for `min_replicas` and what they need beside them.

    The room is set aside until Ray Data has asked for its replicas, so that two jobs that begin at
    the same time do not take each other's. A cluster that can grow does so for it.

    Args:
        settings: Of the job.

    Raises:
        WaitedTooLong: There was none within `max_wait_minutes`.
    """
    replicas = choose_replicas(settings, alive_nodes(), settings.min_replicas)
    beside = {"CPU": FETCH_CPUS + WRITE_CPUS}
    room = placement_group([replicas.resources] * settings.min_replicas + [beside])
    # Ray types the list as one of classes; it calls what is in there.
    watch: Any = partial(_ReplicaWatch, room, settings.max_replicas)
    ray.data.DataContext.get_current().custom_execution_callback_classes = [watch]
    if not room.wait(_LOOK_S):
        _wait(room, replicas, settings)


def _wait(room: PlacementGroup, replicas: Replicas, settings: LabelSettings) -> None:
    started = time.monotonic()
    wanted = f"{settings.min_replicas} replica(s) with {_words(replicas.resources)} each"
    _log.info(
        "waiting for room for %s, at most %g minutes (max_wait_minutes); the cluster has %s in "
        "all. It has to grow, or others use it: see `ray status`",
        wanted,
        settings.max_wait_minutes,
        _words(_cluster_resources()),
    )
    while not room.wait(_LOOK_S):
        if time.monotonic() - started > 60 * settings.max_wait_minutes:
            remove_placement_group(room)
            raise WaitedTooLong(
                f"the cluster has had no room for {wanted} for {settings.max_wait_minutes:g} "
                f"minutes (max_wait_minutes); it has {_words(_cluster_resources())} in all"
            )
    _log.info("there is room after %.0f s", time.monotonic() - started)


def _cluster_resources() -> dict[str, float]:
    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray's
    return found


def _words(resources: dict[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} CPU and {resources.get('GPU', 0):g} GPU"


class _ReplicaWatch:
    """Says how many replicas are at work, and starts more on nodes that are added.

    Ray starts more by itself only where all steps' equal shares of the cluster's CPUs allow it,
    which they do not where replicas have most of them. It has no public way for either: this is an
    `ExecutionCallback` of Ray, called at every step.
    """

    def __init__(self, room: PlacementGroup, max_replicas: int | None) -> None:
        self._room: PlacementGroup | None = room
        self._max_replicas = max_replicas or sys.maxsize
        self._seen: tuple[int, int] | None = None
        self._looked_at = 0.0

    def on_execution_step(self, executor: Any) -> None:
        if self._room is not None:
            # The replicas have been asked for by now, and come before others who wait for room.
            remove_placement_group(self._room)
            self._room = None
        for operator in executor._topology:  # noqa: SLF001 - as above
            for pool in operator.get_autoscaling_actor_pools():
                self._tell(pool.get_actor_info())
                self._grow(pool)

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
