"""The flow: the whole job as one chain, one Ray row per shard.

    look -> lock -> plan or resume -> connect -> shards | fetch | segment | write -> publish

What each step gets is stated here; how much a replica is, in replicas.py.
"""

import logging
from collections.abc import Iterator
from functools import partial
from typing import Any

from pipeline.cluster.connect import connect
from pipeline.labelling import publish, report, segment
from pipeline.labelling.fetch import Fetch
from pipeline.labelling.marks import Marks
from pipeline.labelling.replicas import FETCH_CPUS, WRITE_CPUS, choose_replicas
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import Receipt, ShardTask
from pipeline.labelling.session import Job, Outcome
from pipeline.labelling.watch import watched
from pipeline.labelling.write import Write
from pipeline.log_context import belong_to
from pipeline.memory import release_free_memory
from pipeline.settings.label import LabelSettings

_log = logging.getLogger(__name__)

# Shards in one replica: one on the device, one being decoded, one being encoded.
_CALLS_PER_REPLICA = 3


def label(job: Job) -> Outcome:
    """Do the whole job, or what is missing of it.

    Args:
        job: What to do.

    Raises:
        PipelineError: As `pipeline.errors` says, each with its exit code.
    """
    found = job.look()
    if (done := job.nothing_left(found)) is not None:
        return done
    job = job.writable()
    with job.lock() as lock:
        found = job.look_again(found)
        if (done := job.nothing_left(found)) is not None:
            return done
        run = job.open_run(found, lock.number)
        belong_to(run.run_id, run.attempt)
        release_free_memory()
        todo = run.missing()
        _log.info("run %s: %d of %d shards to do", run.run_id, len(todo), run.record.num_shards)
        if todo:
            _join_cluster(run, todo, job.settings)
        with watched(run, todo, job.settings) as watch:
            load = partial(segment.open_predictor, run.storage, job.network)
            for _ in watch.show(label_shards(run, todo, job.settings, load)):
                lock.check()
            manifest = publish.publish(run, partial(report.as_html, run))
    return Outcome.of_run(run, manifest, watch.images_per_s)


def _join_cluster(run: Run, todo: list[ShardTask], settings: LabelSettings) -> None:
    connect(settings.ray_address)
    # Ray takes seconds to import, which a run with nothing to do must not wait for.
    from pipeline.labelling.preflight import check_start  # noqa: PLC0415

    check_start(run, todo[0], settings)


def label_shards(
    run: Run, todo: list[ShardTask], settings: LabelSettings, load: segment.LoadPredictor
) -> Iterator[Receipt]:
    """Run shards through Ray Data, once there is room for it.

    Args:
        run: Whose shards they are.
        todo: The shards; with none, Ray need not be there.
        settings: Of the job.
        load: Gives a replica its network.

    Returns:
        A receipt for each committed shard, in any order.
    """
    if not todo:
        return iter(())
    import ray.data  # noqa: PLC0415 - as above

    from pipeline.cluster.data_context import set_switches  # noqa: PLC0415
    from pipeline.cluster.nodes import alive_nodes  # noqa: PLC0415
    from pipeline.labelling.pool import wait_for_replicas  # noqa: PLC0415

    wait_for_replicas(settings, len(todo))
    set_switches(ray.data.DataContext.get_current(), settings.max_wait_minutes)
    replicas = choose_replicas(settings, alive_nodes(), len(todo))
    _log.info("%s", replicas)
    threads = settings.io_threads
    # Ray types every row as dict[str, Any], ours are TypedDicts.
    shards: Any = ray.data.from_items([dict(task) for task in todo], override_num_blocks=len(todo))
    return _receipts(
        shards.map(Fetch(run.storage, settings.max_image_bytes, threads), num_cpus=FETCH_CPUS)
        .map(
            segment.Segmenter,
            fn_constructor_args=(
                *(load, run.record.network.classes, settings, replicas.placement),
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
        .map(Write(run, threads), num_cpus=WRITE_CPUS),
        settings.max_wait_minutes,
    )


def _receipts(chain: Any, max_wait_minutes: float) -> Iterator[Receipt]:
    from pipeline.cluster.ray_errors import own_errors  # noqa: PLC0415 - as above

    with own_errors(
        f"no shard has got on for {max_wait_minutes:g} minutes (max_wait_minutes): "
        "the replicas wait for nodes, or hang"
    ):
        yield from chain.iter_rows()
