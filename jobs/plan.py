"""`plan`: what `label` with the same flags would do."""

from jobs.logs.output import say
from pipeline.errors import EXIT_OK
from pipeline.labelling import request_costs
from pipeline.labelling.needs import Needs
from pipeline.labelling.network import AUTO
from pipeline.labelling.session import Found, Job, open_job
from pipeline.settings.label import LabelSettings


def run(settings: LabelSettings) -> int:
    """Say what would be done; writes nothing and starts nothing.

    Args:
        settings: Those of `label`, from file, environment and flags.

    Returns:
        The exit code.
    """
    job = open_job(settings)
    say("\n".join(_describe(job, job.look())))
    return EXIT_OK


def _describe(job: Job, found: Found) -> list[str]:
    if found.run is not None:
        return _describe_run(job, found)
    assert found.draft is not None, "either a run or a draft"
    drafted = found.draft
    done = (
        f"already done     {drafted.num_skipped:,}, of them failed: {drafted.num_skipped_failed:,}"
    )
    lines = [
        f"images to do     {drafted.num_images:,}",
        f"bytes to read    {drafted.num_bytes:,}",
        f"shards           {drafted.num_shards:,}",
        done,
        f"other files      {drafted.num_ignored:,} (no images by their name)",
        f"fingerprint      {_fingerprint(job)}",
        _driver(found),
        *_estimate(job, drafted.num_images),
    ]
    listed = drafted.num_images + drafted.num_skipped
    to_do = (drafted.num_images, drafted.num_bytes, drafted.num_shards)
    amount = request_costs.Amount(listed, drafted.num_header_reads, *to_do)
    lines += request_costs.lines(job.settings, amount, kinds=(False, True))
    if drafted.num_images:
        lines.append(f"first image      {drafted.first_uri}")
    return lines


def _driver(found: Found) -> str:
    needs = Needs.to_do(found)
    return "; ".join([f"driver           needs {needs}", *needs.short()])


def _fingerprint(job: Job) -> str:
    if job.network.precision == AUTO:
        return "known when the first run has chosen its precision"
    return job.record.fingerprint


def _describe_run(job: Job, found: Found) -> list[str]:
    run = found.run
    assert run is not None, "called with a run"
    todo = run.missing()
    num_done = run.record.num_images - todo.num_images
    done = f"already done     {num_done:,} of this run, {run.record.num_skipped:,} by earlier ones"
    [finished] = job.history.finished([run])
    state = "is finished" if finished else "would be continued"
    num_bytes = run.record.num_bytes * todo.num_images // max(1, run.record.num_images)
    amount = request_costs.Amount(0, 0, todo.num_images, num_bytes, len(todo))
    return [
        f"run {run.run_id} {state}",
        f"images to do     {todo.num_images:,} of {run.record.num_images:,}",
        f"bytes to read    {run.record.num_bytes:,} in the whole run",
        f"shards           {len(todo):,} of {run.record.num_shards:,}",
        done,
        f"fingerprint      {job.record.fingerprint}",
        _driver(found),
        *_estimate(job, todo.num_images),
        *request_costs.lines(job.settings, amount, kinds=[run.masks_in_tars]),
    ]


def _estimate(job: Job, num_images: int) -> list[str]:
    """Estimate the time from the speed of the newest finished run of the same network."""
    rate = job.earlier_images_per_s()
    if rate is None:
        return ["estimate         none yet: no finished run of this network to go by"]
    return [f"estimate         {num_images / rate:,.0f} s at {rate:.1f} images/s, as last time"]
