"""Room on a cluster: set aside before the work begins, and waited for."""

import logging
import time

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from pipeline.errors import WaitedTooLong
from pipeline.settings.shared import ConnectionFields

_log = logging.getLogger(__name__)

# How often a wait looks whether it is over; Ray is asked, not the store.
_LOOK_S = 1.0


def wait_for_room(
    number: int,
    what: str,
    each: dict[str, float],
    beside: dict[str, float],
    settings: ConnectionFields,
) -> PlacementGroup:
    """Wait until a cluster has room for some actors and for what they need beside them.

    The room is set aside, so that two jobs that begin at the same time do not each take a part of
    what the other needs. A cluster that can grow does so for it.

    Args:
        number: Of actors.
        what: They are, for the log.
        each: Resources of each, by Ray's names.
        beside: Resources of what works for them.
        settings: They say how long to wait, and how often to say so.

    Returns:
        The room, to be given back when the actors have been asked for.

    Raises:
        WaitedTooLong: There was none in that time.
    """
    room: PlacementGroup = placement_group([*[each] * number, *filter(None, [beside])])
    if not room.wait(_LOOK_S):
        _wait(room, f"{number} {what} with {_words(each)} each", settings)
    return room


def give_back(room: PlacementGroup) -> None:
    """Give back room that was set aside."""
    remove_placement_group(room)


def _wait(room: PlacementGroup, wanted: str, settings: ConnectionFields) -> None:
    limit = f"{settings.max_wait_minutes:g} minutes (max_wait_minutes)"
    started = said_at = time.monotonic()
    _log.info(
        "waiting for room for %s, at most %s; the cluster has %s in all. It has to grow, or others "
        "use it: see `ray status`",
        wanted,
        limit,
        _words(_cluster_resources()),
    )
    while not room.wait(_LOOK_S):
        now = time.monotonic()
        if now - started > 60 * settings.max_wait_minutes:
            give_back(room)
            raise WaitedTooLong(
                f"the cluster has had no room for {wanted} for {limit}; it has "
                f"{_words(_cluster_resources())} in all"
            )
        if now - said_at >= settings.log_interval_s:
            said_at = now
            _log.info("waiting for room for %s since %.0f s", wanted, now - started)
    _log.info("there is room after %.0f s", time.monotonic() - started)


def _cluster_resources() -> dict[str, float]:
    found: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray's
    return found


def _words(resources: dict[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} CPU and {resources.get('GPU', 0):g} GPU"
