"""python -m jobs COMMAND, and the console command `fcn`: the same.

A command has two phases: its settings are read, and what is wrong with them is said at once; then
the module that does the work is imported, which may load Ray or torch, and is given the settings.

The exit code tells the truth; `pipeline.errors` says which is which.
"""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn

from jobs.logs.logs import configure, log_to_stderr
from jobs.logs.output import say
from jobs.settings.demo import DemoSettings
from jobs.settings.mistakes import similar
from jobs.settings.parser import environment, first_log_format, read_settings
from jobs.settings.submission import read_submission
from pipeline.cluster.leaving import leave_ray
from pipeline.ending import START_GRACE_S, is_stopping, keep_code, stop_on_signals
from pipeline.errors import EXIT_BUG, EXIT_OK, PipelineError, SettingError, Stopped, StoreError
from pipeline.settings.clean import CleanSettings
from pipeline.settings.cluster import DoctorSettings, SubmitSettings
from pipeline.settings.evaluate import EvaluateSettings
from pipeline.settings.export import ExportSettings
from pipeline.settings.label import LabelSettings
from pipeline.settings.reports import ReportSettings, RunsSettings
from pipeline.settings.select import SelectSettings
from pipeline.settings.shared import LogFields, NoSettings
from pipeline.settings.train import TrainSettings
from pipeline.settings.verify import VerifySettings
from pipeline.settings.weights import ImportSettings
from pipeline.versions import versions

_log = logging.getLogger("fcn")


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        settings: Class of its settings.
        does: module:function that is called with them and gives the exit code.
        text: What it does, for --help.
        read: Reads what it is given, where that is more than settings.
    """

    settings: type[NoSettings]
    does: str
    text: str
    read: Callable[[Sequence[str], Mapping[str, str]], Any] | None = None

    def run(self, name: str, argv: Sequence[str], environ: Mapping[str, str]) -> int:
        """Read the settings, then import what works with them, and let it work."""
        if self.read is not None:
            settings = self.read(argv, environ)
        else:
            settings = read_settings(self.settings, name, argv, environ)
        if isinstance(settings, LogFields):
            configure(settings.log_format)
        module, _, function = self.does.partition(":")
        code: int = getattr(import_module(module), function)(settings)
        return code


COMMANDS = {
    "label": Command(
        LabelSettings, "jobs.label:run", "label every image of an input; run it again to resume"
    ),
    "plan": Command(LabelSettings, "jobs.plan:run", "say what `label` would do; writes nothing"),
    "verify": Command(
        VerifySettings, "jobs.verify:run", "re-read an output and prove that it is whole"
    ),
    "runs": Command(RunsSettings, "jobs.runs:run", "list the runs of an output, newest first"),
    "select": Command(
        SelectSettings, "jobs.select:run", "choose images that people should look at"
    ),
    "export": Command(
        ExportSettings,
        "jobs.export:run",
        "write images and masks as VOC, COCO, for Label Studio, WebDataset or Hugging Face",
    ),
    "clean": Command(
        CleanSettings, "jobs.clean:run", "remove the runs that newer ones have replaced"
    ),
    "report": Command(ReportSettings, "jobs.report:run", "show what a run has done"),
    "train": Command(
        TrainSettings,
        "jobs.train:run",
        "train a network on labelled images; run it again to resume",
    ),
    "evaluate": Command(
        EvaluateSettings, "jobs.evaluate:run", "label a labelled set and score the masks"
    ),
    "doctor": Command(
        DoctorSettings,
        "jobs.doctor.doctor:run",
        "look for what would stand in the way of `label`, and estimate it",
    ),
    "submit": Command(
        SubmitSettings,
        "jobs.submit:run",
        "run one of these as a job on a Ray cluster and follow it",
        read_submission,
    ),
    "import-weights": Command(
        ImportSettings, "jobs.import_weights:run", "turn published weights into a checkpoint"
    ),
    "models": Command(
        NoSettings,
        "jobs.models:run",
        "list the networks: their size, cost, stride and sources of weights",
    ),
    "demo": Command(
        DemoSettings,
        "jobs.demo.demo:run",
        "draw scenes, label them on this machine, show the result",
    ),
}

_ABOUT = """about:
  --version             the versions of fcn-pipeline, torch, Ray and Python
  --completion SHELL    what a shell completes commands and flags with, as in
                        fcn --completion bash > ~/.local/share/bash-completion/completions/fcn"""

_EXIT_CODES = """exit codes:
  0  done
  1  a bug, or verify (or evaluate) found something broken
  2  a setting is wrong, or a training has diverged
  3  no usable input: missing or unreadable, mask names collide
  4  more bad images than max_error_rate allows; everything is committed all the same
  5  stopped before the end; run the same command again to resume
  6  the run was started with another network or decoder
  7  another process is at work on the same input and network, or training run"""


def main(argv: Sequence[str] | None = None, settle: Callable[[int], None] = lambda _: None) -> int:
    """Run one command.

    Args:
        argv: The command and its flags; default: those of the process.
        settle: Is told the exit code as soon as nothing can change it any more but a signal.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else ""
    if name in ("", "--help", "-h", "help"):
        say(_usage())
        return EXIT_OK if name else SettingError.exit_code
    if name == "--version":
        say(_version())
        return EXIT_OK
    with log_to_stderr(first_log_format(arguments, environment())):
        stop_on_signals(START_GRACE_S)
        return _run(name, arguments[1:], settle)


def _run(name: str, argv: Sequence[str], settle: Callable[[int], None]) -> int:
    try:
        code = _outcome(name, argv)
        settle(code)
    except Stopped as signal:
        _log.error("stopped by %s before the end; run the same command again to resume", signal)
        return signal.exit_code
    return code


def _outcome(name: str, argv: Sequence[str]) -> int:
    try:
        if name == "--completion":
            say(_completion(argv))
            return EXIT_OK
        if name not in COMMANDS:
            meant = similar(name, [*COMMANDS, "--version", "--help", "--completion"])
            raise SettingError(
                f"there is no command {name!r}{meant or '; there are: ' + ', '.join(COMMANDS)}"
            )
        return COMMANDS[name].run(name, argv, environment())
    except PipelineError as error:
        stopped = error.exit_code == Stopped.exit_code
        first = "when that is mended, " if isinstance(error, StoreError) and error.refused else ""
        again = f"; {first}run the same command again to resume" if stopped else ""
        _log.error("%s%s", error, again)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - whatever a bug raises, it is a line of the log, too
        if is_stopping():
            # The signal cut something short that took it for something else, as imports do.
            # Where it was cut short tells nobody anything.
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            _log.error("stopped by a signal (%s); run the same command again to resume", reason)
            return Stopped.exit_code
        _log.critical("this is a bug; what led to it:", exc_info=True)
        return EXIT_BUG


def _version() -> str:
    found = versions()
    return (
        f"fcn-pipeline {found['fcn-pipeline']} (torch {found['torch']}, Ray {found['ray']}, "
        f"Python {found['python']})"
    )


def _completion(argv: Sequence[str]) -> str:
    # Not every command shall load what only shells need.
    found = import_module("jobs.settings.completion")
    if len(argv) != 1 or argv[0] not in found.SHELLS:
        raise SettingError(f"--completion needs a shell, one of {', '.join(found.SHELLS)}")
    commands = {name: (one.settings, one.text) for name, one in COMMANDS.items()}
    script: str = found.completion(argv[0], commands)
    return script


def _usage() -> str:
    lines = ["usage: fcn COMMAND [--help] ...", "", "commands:"]
    lines += [f"  {name:<14} {command.text}" for name, command in COMMANDS.items()]
    return "\n".join([*lines, "", _ABOUT, "", _EXIT_CODES])


def command() -> NoReturn:
    """Run the command of this process, and end the process with its exit code."""
    sys.exit(leave_ray(main(settle=keep_code)))


if __name__ == "__main__":
    command()
