"""The chain: missing shards through Ray Data, one row per shard from fetch on.

    groups of shards | fetch | segment | write -> receipts

What each step gets is stated here; how much a replica is, in replicas.py.
"""

import logging
from collections.abc import Iterator
from typing import Any

import ray.data

from pipeline.cluster.connect import connect
from pipeline.cluster.data_context import keep_rows_apart, set_switches
from pipeline.cluster.last_step import never_hold_back_last_step
from pipeline.cluster.mailbox import Mailbox
from pipeline.cluster.nodes import alive_nodes
from pipeline.cluster.ray_errors import own_errors
from pipeline.labelling import segment
from pipeline.labelling.fetch import Fetch
from pipeline.labelling.marks import Marks
from pipeline.labelling.precision import decided
from pipeline.labelling.preflight import check_start
from pipeline.labelling.prometheus import RunMetrics
from pipeline.labelling.publish_beside import PublishBeside
from pipeline.labelling.replicas import FETCH_CPUS, WRITE_CPUS, choose_replicas
from pipeline.labelling.room import wait_for_replicas
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import Receipt, ShardTask
from pipeline.labelling.shards import Shards
from pipeline.labelling.write import Write
from pipeline.settings.label import LabelSettings

__all__ = ["Mailbox", "PublishBeside", "RunMetrics", "decided", "join_cluster", "label_shards"]

_log = logging.getLogger(__name__)

# Shards in one replica: one on the device, one being decoded, one being encoded.
_CALLS_PER_REPLICA = 3
# Of one dataset, whose end costs a start of the replicas: Ray keeps books on each shard until then.
_SHARDS_PER_DATASET = 16_384


def join_cluster(run: Run, shard: ShardTask, settings: LabelSettings) -> None:
    """Connect to Ray, and refuse a cluster that can't do the work.

    Args:
        run: That is to be labelled.
        shard: One that is missing.
        settings: They name the cluster.

    Raises:
        SettingError: There is no such cluster, or a node of it can't do the work.
        ClusterLost: Ray does not start on this machine.
    """
    connect(settings.ray_address)
    check_start(run, shard, settings)


def label_shards(
    run: Run, todo: Shards, settings: LabelSettings, load: segment.LoadPredictor
) -> Iterator[Receipt]:
    """Run shards through Ray Data, once there is room for it.

    Args:
        run: Whose shards they are.
        todo: The shards.
        settings: They say how many replicas there may be, and how long a wait may take.
        load: Gives a replica its network.

    Returns:
        A receipt for each committed shard, in any order.
    """
    for part in todo.parts(_SHARDS_PER_DATASET):
        yield from _label_part(run, part, settings, load)


def _label_part(
    run: Run, part: Shards, settings: LabelSettings, load: segment.LoadPredictor
) -> Iterator[Receipt]:
    groups = [dict(group) for group in part.groups()]
    wait_for_replicas(settings, len(part), len(groups))
    set_switches(ray.data.DataContext.get_current(), settings.max_wait_minutes)
    replicas = choose_replicas(settings, alive_nodes(), len(part))
    _log.info("%s", replicas)
    threads = settings.io_threads
    # As many writes as fetches: more would wait in Ray, and ask a cluster for nodes that grows.
    beside = ray.data.TaskPoolStrategy(size=min(replicas.num_fetches, len(groups)))
    # Ray types every row as dict[str, Any], ours are TypedDicts.
    rows: Any = ray.data.from_items(groups, override_num_blocks=len(groups))
    keep_rows_apart(rows.context)
    never_hold_back_last_step(rows.context)
    return _receipts(
        rows.flat_map(
            Fetch(run.storage, settings.max_image_bytes, threads, run.record.input),
            num_cpus=FETCH_CPUS,
            compute=beside,
        )
        .map(
            segment.Segmenter,
            fn_constructor_args=(
                *(load, run.record.network.classes, _as_begun(run, settings), replicas.placement),
                Marks.of_run(run),
            ),
            num_cpus=replicas.num_cpus,
            num_gpus=replicas.num_gpus,
            compute=ray.data.ActorPoolStrategy(
                size=replicas.number,
                max_concurrent_calls_per_actor=_CALLS_PER_REPLICA,
                enable_true_multi_threading=True,
            ),
        )
        .map(Write(run, threads), num_cpus=WRITE_CPUS, compute=beside),
        settings.max_wait_minutes,
    )


def _as_begun(run: Run, settings: LabelSettings) -> LabelSettings:
    """Keep what all masks of a run have in common, and no fingerprint holds."""
    begun = {"mask_colors": run.record.settings.get("mask_colors", "palette")}
    return settings.model_copy(update=begun)


def _receipts(chain: Any, max_wait_minutes: float) -> Iterator[Receipt]:
    with own_errors(
        f"no shard has made progress for {max_wait_minutes:g} minutes (max_wait_minutes): "
        "the replicas wait for nodes, or hang"
    ):
        yield from chain.iter_rows()
