"""The flow: the whole job as one chain, one Ray row per shard.

    plan -> shards | fetch | segment | write | receipts -> publish

What each step gets is stated here; how much a replica is, in replicas.py.
"""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

from pipeline.labelling import publish, report, segment
from pipeline.labelling.fetch import Fetch
from pipeline.labelling.progress import Progress
from pipeline.labelling.replicas import FETCH_CPUS, WRITE_CPUS, choose_replicas
from pipeline.labelling.runs import Run
from pipeline.labelling.schema import Receipt, ShardTask
from pipeline.labelling.session import Job, Outcome
from pipeline.labelling.write import Write
from pipeline.memory import release_free_memory
from pipeline.settings.label import LabelSettings

_log = logging.getLogger(__name__)

# Shards in one replica: one on the device, one being decoded, one being encoded.
_CALLS_PER_REPLICA = 3


class Observer(Protocol):
    """Sees every committed shard."""

    def add(self, receipt: Receipt) -> None:
        """See one."""


def label(
    job: Job, begin: Callable[[Run], None], open_ray: Callable[[Run, list[ShardTask]], Observer]
) -> Outcome:
    """Do the whole job, or what is missing of it.

    Args:
        job: What to do.
        begin: Is told which run it is, once its lock is taken.
        open_ray: Connects to a cluster that has room for the replicas, or starts one, and makes an
            observer of the run and of the shards that are to be done. Called only if there are any.

    Raises:
        PipelineError: As `pipeline.errors` says, each with its exit code.
    """
    found = job.look()
    if (done := job.nothing_left(found)) is not None:
        return done
    with job.locked(found) as held:
        if isinstance(held, Outcome):
            return held
        run, lock = held
        begin(run)
        release_free_memory()
        todo = run.missing()
        num_done = run.record.num_images - run.num_images(todo)
        _log.info("run %s: %d of %d shards to do", run.run_id, len(todo), run.record.num_shards)
        observer = open_ray(run, todo) if todo else None
        with Progress(run.record.num_images, num_done, job.settings.log_interval_s) as progress:
            if observer is not None:
                load = partial(segment.open_predictor, run.storage, job.network)
                for receipt in label_shards(run, todo, job.settings, load):
                    progress.add(receipt)
                    observer.add(receipt)
                    lock.check()
        manifest = publish.publish(run, partial(report.as_html, run))
    return Outcome.of_run(run, manifest, progress.images_per_s)


def label_shards(
    run: Run, todo: list[ShardTask], settings: LabelSettings, load: segment.LoadPredictor
) -> Iterator[Receipt]:
    """Run shards through Ray Data and give a receipt for each committed one, in any order.

    Args:
        run: Whose shards they are.
        todo: The shards.
        settings: Of the job.
        load: Gives a replica its network.
    """
    # Ray takes seconds to import, which a run with nothing to do must not wait for.
    import ray.data  # noqa: PLC0415

    from pipeline.cluster.data_context import set_switches  # noqa: PLC0415
    from pipeline.cluster.nodes import alive_nodes  # noqa: PLC0415
    from pipeline.cluster.ray_errors import own_errors  # noqa: PLC0415

    set_switches(ray.data.DataContext.get_current(), settings.max_wait_minutes)
    nodes = alive_nodes()
    if len(nodes) > 1 and "file://" in (run.record.input[:7], run.output[:7]):
        _log.warning("several nodes and local paths: they must lie on a disk that all nodes share")
    replicas = choose_replicas(settings, nodes, len(todo))
    _log.info("%s", replicas)
    threads = settings.io_threads
    # Ray types every row as dict[str, Any], ours are TypedDicts.
    shards: Any = ray.data.from_items([dict(task) for task in todo], override_num_blocks=len(todo))
    receipts = (
        shards.map(Fetch(run.storage, settings.max_image_bytes, threads), num_cpus=FETCH_CPUS)
        .map(
            segment.Segmenter,
            fn_constructor_args=(load, run.record.network.classes, settings, replicas.placement),
            num_cpus=replicas.num_cpus,
            num_gpus=replicas.num_gpus,
            compute=ray.data.ActorPoolStrategy(
                size=replicas.number,
                max_concurrent_calls_per_actor=_CALLS_PER_REPLICA,
                enable_true_multi_threading=True,
            ),
        )
        .map(Write(run, threads), num_cpus=WRITE_CPUS)
    )
    with own_errors(
        f"no shard has got on for {settings.max_wait_minutes:g} minutes (max_wait_minutes): "
        "the replicas wait for nodes, or hang"
    ):
        yield from receipts.iter_rows()
