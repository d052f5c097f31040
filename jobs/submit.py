"""`submit`: another command as a job on a Ray cluster, followed to its end.

`ray job submit` ends with 0 for a stopped job and for a lost log; this ends with the exit code of
the job itself, and refuses a run that is at work already.
"""

import argparse
import hashlib
import json
import logging
import os
import re
import shlex
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from jobs.logs.output import say
from jobs.settings.parser import our_variables, read_settings
from pipeline.errors import EXIT_BUG, EXIT_OK, LockHeld, SettingError, Stopped
from pipeline.redact import holds_secret
from pipeline.settings.cluster import DoctorSettings, SubmitSettings
from pipeline.settings.label import LabelSettings
from pipeline.settings.shared import RUN_ID_PATTERN, RUN_ID_WORDS, OutputSettings
from pipeline.settings.train import EvaluateSettings, TrainSettings

if TYPE_CHECKING:  # importing these loads Ray
    from pipeline.cluster.job_server import JobDetails, RayJobs

_log = logging.getLogger(__name__)

# What can be submitted: its settings, and the one of them that names its run.
_COMMANDS: dict[str, tuple[type[BaseModel], str | None]] = {
    "label": (LabelSettings, "run-id"),
    "evaluate": (EvaluateSettings, "run-id"),
    "train": (TrainSettings, "run-name"),
    "verify": (OutputSettings, None),
    "doctor": (DoctorSettings, None),
}
# These end a process from outside; others (a segmentation fault) are its own.
_FROM_OUTSIDE = (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP)
_SHELL_SIGNALS = 128
# A shell's words for a program that is not there, or can't be run: the setting `python`.
_NO_PROGRAM = (126, 127)


def run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Submit a command.

    Args:
        argv: Flags, `--`, and the command with its own flags.
        environ: Environment variables; those of settings travel with the job.

    Returns:
        The exit code of the job; without waiting 0.

    Raises:
        LockHeld: A job of the same run is waiting or at work.
        ClusterLost: The cluster does not answer.
        SettingError: A setting is wrong.
    """
    ours, command = _split(argv)
    settings = read_settings(SubmitSettings, "submit", ours, environ)
    variables = _variables(environ)
    _check(command, variables)
    _check_settings(command, variables)
    name = submission_name(command, variables)
    # Ray takes seconds to import, which a setting's error must not wait for.
    from pipeline.cluster.job_server import RayJobs  # noqa: PLC0415

    jobs = RayJobs(settings.address, settings.lost_after_s)
    submission_id = _submit(jobs, settings, name, command, variables)
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


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    words = list(argv)
    place = words.index("--") if "--" in words else len(words)
    return words[:place], words[place + 1 :]


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    own = {f"FCN_{name.upper()}" for name in SubmitSettings.model_fields}
    return {name: value for name, value in our_variables(environ).items() if name not in own}


def _check(command: Sequence[str], variables: Mapping[str, str]) -> None:
    if not command or command[0] not in _COMMANDS:
        what = f"{command[0]!r} can't be submitted" if command else "nothing is to be submitted"
        raise SettingError(
            f"{what}; write fcn submit [flags] -- COMMAND ..., with one of {', '.join(_COMMANDS)}"
        )
    for word in (*command, *variables.values()):
        if holds_secret(word):
            raise SettingError(
                f"{word!r} holds a password or a signature, which would stand in Ray's record of "
                "the job; give the cluster's nodes credentials the way AWS tools find them"
            )


def _check_settings(command: Sequence[str], variables: Mapping[str, str]) -> None:
    """Find out here what the job would end with 2 for, as far as it can be known here."""
    if "FCN_CONFIG" in variables or any(word.startswith("--config") for word in command):
        # It may lie where only the cluster gets at it.
        return
    read_settings(_COMMANDS[command[0]][0], command[0], command[1:], variables)


def submission_name(command: Sequence[str], variables: Mapping[str, str]) -> str:
    """Name a command's run for Ray, which takes each name once.

    Args:
        command: The command and its flags.
        variables: Settings from the environment.

    Returns:
        fcn-COMMAND-RUN-HASH, where the hash tells the outputs apart that have a run of this name;
        without a name of the run a hash of all that the command is made of.
    """
    _, flag = _COMMANDS[command[0]]
    run_name = flag and _given(flag, command, variables)
    if run_name and not re.fullmatch(RUN_ID_PATTERN, run_name):
        raise SettingError(f"{flag}={run_name!r}: {RUN_ID_WORDS}")
    if not run_name:
        return f"fcn-{command[0]}-{_hash(*command, json.dumps(sorted(variables.items())))}"
    places = [_given(one, command, variables) for one in ("output", "config")]
    # What stands in a file is not read: it may lie where only the cluster gets at it.
    place = places[0].rstrip("/") if places[0] else f"config={places[1]}"
    return f"fcn-{command[0]}-{run_name}-{_hash(place)}"


def _given(flag: str, command: Sequence[str], variables: Mapping[str, str]) -> str | None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    default = variables.get(f"FCN_{flag.replace('-', '_').upper()}") or None
    parser.add_argument(f"--{flag}", dest="value", default=default, nargs="?")
    value: str | None = parser.parse_known_args(list(command[1:]))[0].value
    return value


def _hash(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:8]


def _submit(
    jobs: "RayJobs",
    settings: SubmitSettings,
    name: str,
    command: Sequence[str],
    variables: Mapping[str, str],
) -> str:
    """Submit the job, or find the one to attach to; gives its submission id."""
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
    entrypoint = shlex.join([settings.python, "-m", "jobs", *command])
    jobs.submit(submission_id, entrypoint, _runtime_env(settings, variables))
    _log.info("%s is submitted to %s", submission_id, jobs.address)
    return submission_id


def _runtime_env(settings: SubmitSettings, variables: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {"env_vars": dict(variables)}
    if settings.working_dir is not None:
        folder = settings.working_dir
        found["working_dir"] = folder if "://" in folder else os.path.abspath(folder)
    return found


def exit_code(job: "JobDetails") -> int:
    """Give the exit code of a job that has ended, and say in the log how it did.

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
        from pipeline.cluster.job_server import node_lost  # noqa: PLC0415 - it loads Ray

        return Stopped.exit_code if node_lost(job) else EXIT_BUG
    if code in _NO_PROGRAM:
        return SettingError.exit_code
    number = -code if code < 0 else code - _SHELL_SIGNALS
    if number <= 0:
        return code
    return Stopped.exit_code if number in _FROM_OUTSIDE else EXIT_BUG
