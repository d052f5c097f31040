"""The flow: the whole job on one screen.

    look -> lock -> plan or resume -> connect -> shards | fetch | segment | write -> publish

The steps between the bars are chain.py's; tables are published beside them, and the rest at the
end.
"""

import logging
from functools import partial

from pipeline.labelling import delta, publish, report, segment
from pipeline.labelling.session import Job, Outcome
from pipeline.labelling.watch import watched
from pipeline.labelling.within_shards import telling
from pipeline.log_context import belong_to
from pipeline.memory import release_free_memory

_log = logging.getLogger(__name__)


def label(job: Job) -> Outcome:
    """Do the whole job, or what is missing of it.

    Args:
        job: What to do.

    Raises:
        PipelineError: As `pipeline.errors` says, each with its exit code.
    """
    found = job.look()
    if (done := job.nothing_left(found)) is not None:
        job.catch_up()
        return done
    job = job.checked()
    # Ray takes seconds to import, which what is refused or done already must not wait for.
    from pipeline.labelling import chain  # noqa: PLC0415

    job = chain.decided(job)
    with job.lock() as lock:
        found = job.look_again(found)
        if (done := job.nothing_left(found)) is not None:
            return done
        run = job.open_run(found, lock.number)
        belong_to(run.run_id, run.attempt)
        release_free_memory()
        todo = run.missing()
        _log.info("run %s: %d of %d shards to do", run.run_id, len(todo), run.record.num_shards)
        with watched(run, todo, job.settings) as watch:
            if todo:
                chain.join_cluster(run, todo[0], job.settings)
                watch.count_with(chain.RunMetrics(run, todo.num_images))
                load = partial(segment.open_predictor, run.storage, job.network)
                heard = telling(load, watch.listen(chain.Mailbox))
                beside = chain.PublishBeside(run, todo)
                for receipt in watch.show(chain.label_shards(run, todo, job.settings, heard)):
                    lock.check()
                    beside.saw(receipt)
                beside.finish()
            asked = partial(report.as_html, run, num_pictures=job.settings.report_images)
            asked = partial(asked, history=job.history)
            keep_up = partial(delta.keep_up, run, begin=job.settings.delta_log)
            manifest = publish.publish(run, asked, keep_up)
        job.archive()
    return Outcome.of_run(run, manifest, watch.images_per_s)
