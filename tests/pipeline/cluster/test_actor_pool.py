"""The watch over the pool of replicas, with Ray's private parts that it uses."""

import logging
import os
import time

import pytest
import ray
import ray.data
from ray.util.placement_group import placement_group, placement_group_table

from pipeline.cluster import actor_pool
from pipeline.cluster.actor_pool import watch_replicas


class Replica:
    """Takes its time, and says which process it is."""

    def __call__(self, row: dict) -> dict:
        time.sleep(0.2)
        return {"pid": os.getpid()}


@pytest.mark.parametrize(("max_replicas", "number"), [(1, 1), (2, 2), (9, 2)])
def test_the_pool_grows_to_what_there_is_room_for(
    ray_session: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    max_replicas: int,
    number: int,
):
    """Begun with one, a pool gets a second replica when there is room and it may; it is said.

    The room that was set aside is given back.
    """
    monkeypatch.setattr(actor_pool, "_GROW_S", 0.1)
    context = ray.data.DataContext.get_current()
    monkeypatch.setattr(context, "custom_execution_callback_classes", [])
    monkeypatch.setattr(context, "enable_progress_bars", False)
    room = placement_group([{"CPU": 0.1}])
    watch_replicas(room, max_replicas, lambda *_: 2)
    rows = ray.data.range(60, override_num_blocks=60)
    pool = ray.data.ActorPoolStrategy(size=1)

    with caplog.at_level(logging.INFO, "pipeline.cluster.actor_pool"):
        pids = {row["pid"] for row in rows.map(Replica, num_cpus=0.3, compute=pool).iter_rows()}

    assert len(pids) == number
    assert f"{number} replica(s) at work" in caplog.text
    assert placement_group_table(room)["state"] == "REMOVED"
