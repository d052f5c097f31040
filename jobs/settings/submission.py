"""What `submit` is given: its own settings, and the command for the cluster with its settings.

All of it is checked before Ray is imported, which takes seconds.
"""

import argparse
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.settings.mistakes import similar
from jobs.settings.parser import our_variables, read_settings
from pipeline.errors import SettingError
from pipeline.redact import holds_secret
from pipeline.settings.cluster import DoctorSettings, SubmitSettings
from pipeline.settings.evaluate import EvaluateSettings
from pipeline.settings.export import ExportSettings
from pipeline.settings.label import LabelSettings
from pipeline.settings.shared import RUN_ID_PATTERN, RUN_ID_WORDS, NoSettings
from pipeline.settings.train import TrainSettings
from pipeline.settings.verify import VerifySettings

# What can be submitted: its settings, and the one of them that names its run.
_COMMANDS: dict[str, tuple[type[NoSettings], str | None]] = {
    "label": (LabelSettings, "run-id"),
    "evaluate": (EvaluateSettings, "run-id"),
    "train": (TrainSettings, "run-name"),
    "verify": (VerifySettings, None),
    "export": (ExportSettings, None),
    "doctor": (DoctorSettings, None),
}


@dataclass(frozen=True)
class Submission:
    """A command for a cluster.

    Attributes:
        settings: Where to submit it to.
        command: The command and its flags.
        variables: Settings from the environment, which travel with it.
        name: Of its run for Ray, which takes each name once.
    """

    settings: SubmitSettings
    command: tuple[str, ...]
    variables: Mapping[str, str]
    name: str


def read_submission(argv: Sequence[str], environ: Mapping[str, str]) -> Submission:
    """Read the flags of `submit` and check the command after them.

    Args:
        argv: Flags, `--`, and the command with its own flags.
        environ: Environment variables.

    Raises:
        SettingError: A setting of either is wrong.
    """
    ours, command = _split(argv)
    settings = read_settings(SubmitSettings, "submit", ours, environ)
    variables = _variables(environ)
    _check(command, variables)
    _check_settings(command, variables)
    # It refuses a run's name that is none.
    name = submission_name(command, variables)
    return Submission(settings, tuple(command), variables, name)


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    words = list(argv)
    if "--" not in words:
        _refuse_without_dashes(words)
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]


def _refuse_without_dashes(words: Sequence[str]) -> None:
    """Refuse a command that follows upon the flags of `submit` with nothing between them."""
    place = next((place for place, word in enumerate(words) if word in _COMMANDS), None)
    if place is None and words and not words[0].startswith("-"):
        place = 0
    if place is not None:
        example = " ".join(["fcn submit", *words[:place], "--", words[place]])
        raise SettingError(f"`--` is missing before the command: {example} ...")


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    own = {f"FCN_{name.upper()}" for name in SubmitSettings.model_fields}
    return {name: value for name, value in our_variables(environ).items() if name not in own}


def _check(command: Sequence[str], variables: Mapping[str, str]) -> None:
    if not command or command[0] not in _COMMANDS:
        what = f"{command[0]!r} can't be submitted" if command else "nothing is to be submitted"
        what += similar(command[0], _COMMANDS) if command else ""
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
