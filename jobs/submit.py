"""`submit`: another command as a job on a Ray cluster, followed to its end.

`ray job submit` ends with 0 for a stopped job and for a lost log; this ends with the exit code of
the job itself, and refuses a run that is at work already.
"""

import logging
import os
import shlex
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

from jobs.logs.output import say
from jobs.settings.submission import Submission
from pipeline.cluster.job_server import RayJobs, node_lost
from pipeline.errors import EXIT_BUG, EXIT_OK, LockHeld, SettingError, Stopped

if TYPE_CHECKING:  # importing these loads Ray
    from pipeline.cluster.job_server import JobDetails, RayJobs

_log = logging.getLogger(__name__)

# These end a process from outside; others (a segmentation fault) are its own.
_FROM_OUTSIDE = (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP)
_SHELL_SIGNALS = 128
# A shell's words for a program that is not there, or can't be run: the setting `python`.
_NO_PROGRAM = (126, 127)


def run(submission: Submission) -> int:
    """Submit a command.

    Args:
        submission: The command, and where to.

    Returns:
        The exit code of the job; without waiting 0.

    Raises:
        LockHeld: A job of the same run is waiting or at work.
        ClusterLost: The cluster does not answer.
        SettingError: The cluster's address is wrong.
    """
    settings = submission.settings
    jobs = RayJobs(settings.address, settings.lost_after_s)
    submission_id = _submit(jobs, submission)
    if not settings.wait:
        say(f"{submission_id} is submitted; `ray job logs --follow {submission_id}` shows its log")
        return EXIT_OK
    try:
        return exit_code(jobs.follow(submission_id, partial(say, end="")))
    except Stopped as error:
        _log.error(
            "%s: no longer followed, the job goes on; the same command with --attach follows it "
            "again, `ray job stop %s` ends it",
            error,
            submission_id,
        )
        return error.exit_code


def _submit(jobs: RayJobs, submission: Submission) -> str:
    """Submit the job, or find the one to attach to; gives its submission id."""
    settings, name = submission.settings, submission.name
    earlier = jobs.find(name)
    alive = [job for job in earlier if not job.status.is_terminal()]
    if alive:
        found = str(alive[-1].submission_id)
        if settings.attach:
            _log.info("following %s, which is %s", found, alive[-1].status.lower())
            return found
        raise LockHeld(
            f"{found} is {alive[-1].status.lower()} at {jobs.address}: the same run; wait for it, "
            f"follow it with --attach, or end it with `ray job stop {found}`"
        )
    # Ray takes a name once, also after its job has ended.
    last = str(earlier[-1].submission_id) if earlier else ""
    number = int(last.removeprefix(name).lstrip("-") or 1) + 1 if last else 1
    submission_id = name if number == 1 else f"{name}-{number}"
    entrypoint = shlex.join([settings.python, "-m", "jobs", *submission.command])
    jobs.submit(submission_id, entrypoint, _runtime_env(submission))
    _log.info("%s is submitted to %s", submission_id, jobs.address)
    return submission_id


def _runtime_env(submission: Submission) -> dict[str, Any]:
    found: dict[str, Any] = {"env_vars": dict(submission.variables)}
    folder = submission.settings.working_dir
    if folder is not None:
        found["working_dir"] = folder if "://" in folder else os.path.abspath(folder)
    return found


def exit_code(job: "JobDetails") -> int:
    """Return the exit code of a job that has ended, and say in the log how it did.

    Args:
        job: In a last state.
    """
    code = _exit_code(job)
    how = job.message if job.driver_exit_code is None and job.status == "FAILED" else ""
    _log.info(
        "%s: %s, exit code %d%s",
        job.submission_id,
        job.status.lower(),
        code,
        f": {how}" if how else "",
    )
    return code


def _exit_code(job: "JobDetails") -> int:
    if job.status == "STOPPED":
        return Stopped.exit_code
    code = EXIT_OK if job.status == "SUCCEEDED" else job.driver_exit_code
    if code is None:
        return Stopped.exit_code if node_lost(job) else EXIT_BUG
    if code in _NO_PROGRAM:
        return SettingError.exit_code
    number = -code if code < 0 else code - _SHELL_SIGNALS
    if number <= 0:
        return code
    return Stopped.exit_code if number in _FROM_OUTSIDE else EXIT_BUG
