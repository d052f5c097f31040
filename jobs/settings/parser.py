"""Settings of a command: file (--config) < environment (FCN_...) < flags."""

import argparse
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from jobs.settings.demo import DemoSettings
from jobs.settings.flags import CONFIG, PREFIX, of_environment, parse, variable_of
from jobs.settings.mistakes import similar
from pipeline.errors import SettingError, StoreError
from pipeline.settings.cluster import DoctorSettings, SubmitSettings
from pipeline.settings.evaluate import EvaluateSettings
from pipeline.settings.export import ExportSettings
from pipeline.settings.label import LabelSettings
from pipeline.settings.reports import ReportSettings, RunsSettings
from pipeline.settings.select import SelectSettings
from pipeline.settings.shared import (
    RUN_ID_WORDS,
    LogFormat,
    Mark,
    NoSettings,
    OutputSettings,
    StoreSettings,
)
from pipeline.settings.train import TrainSettings
from pipeline.settings.verify import VerifySettings
from pipeline.settings.weights import ImportSettings
from pipeline.store.uri import normalise_uri

_Settings = TypeVar("_Settings", bound=NoSettings)

# Kubernetes tells every pod of a service named fcn-... in variables of these endings.
_KUBERNETES = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT(_\d+_\w+)?$")
_SECRET_NAME = re.compile(r"key|secret|token|password|credential", re.IGNORECASE)

_KINDS: tuple[type[NoSettings], ...] = (
    LabelSettings,
    OutputSettings,
    VerifySettings,
    RunsSettings,
    ReportSettings,
    ImportSettings,
    TrainSettings,
    EvaluateSettings,
    DoctorSettings,
    SubmitSettings,
    SelectSettings,
    ExportSettings,
    DemoSettings,
)
_RUN_IDS = ("run_id", "run_name")
_NAMES = dict.fromkeys(name for kind in _KINDS for name in kind.model_fields)


def read_settings(
    kind: type[_Settings], command: str, argv: Sequence[str], environ: Mapping[str, str]
) -> _Settings:
    """Merge a command's settings from file, environment and flags, and check them.

    Args:
        kind: The settings' class.
        command: For the usage line.
        argv: Flags, without the command.
        environ: `FCN_` and a field's name in capitals sets it; AWS_ENDPOINT_URL(_S3),
            RAY_ADDRESS and RAY_API_SERVER_ADDRESS fill what is still open.

    Raises:
        SettingError: A value is wrong, a key or flag is unknown, or the file can't be read.
        SystemExit: After --help, with 0.
    """
    _refuse_unknown_variables(environ)
    flags = parse(kind, command, argv)
    config = flags.pop(CONFIG, None) or environ.get(f"{PREFIX}{CONFIG.upper()}")
    given = {**of_environment(kind, environ), **flags}
    endpoint = given.get("s3_endpoint_url") or _endpoint(environ)
    file_values = _read_config(config, endpoint)
    # One file may serve all commands: what is a setting of another one is no mistake here.
    others = _NAMES.keys() - kind.model_fields.keys()
    file_values = {name: file_values[name] for name in file_values if name not in others}
    try:
        return kind(**{**_defaults(kind, environ), **file_values, **given})
    except ValidationError as error:
        raise SettingError(_explain(error, kind, command)) from error


def _endpoint(environ: Mapping[str, str]) -> str | None:
    """Return where the config is looked for by a command that has no such flag."""
    found: str | None = _defaults(StoreSettings, environ)["s3_endpoint_url"]
    return environ.get(f"{PREFIX}S3_ENDPOINT_URL") or found


def first_log_format(argv: Sequence[str], environ: Mapping[str, str]) -> LogFormat:
    """Say how the log looks until the settings are read, of which a config file may have more.

    Args:
        argv: The command and its flags, right or wrong.
        environ: Environment variables.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--log-format", default=environ.get(f"{PREFIX}LOG_FORMAT"), nargs="?")
    return "json" if parser.parse_known_args(list(argv))[0].log_format == "json" else "text"


def _read_config(uri: str | None, s3_endpoint_url: str | None) -> dict[str, Any]:
    if uri is None:
        return {}
    try:
        storage = StoreSettings.model_validate({"s3_endpoint_url": s3_endpoint_url}).storage()
        values = yaml.safe_load(storage.read(normalise_uri(uri, "config")))
    except ValidationError as error:
        raise SettingError(_explain(error, StoreSettings, "")) from error
    except StoreError as error:
        if error.refused:
            raise SettingError(f"config={uri!r}: {error}") from error
        raise
    except yaml.YAMLError as error:
        raise SettingError(f"config={uri!r} is not valid YAML: {_what_yaml_says(error)}") from error
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise SettingError(
            f"config={uri!r} must hold `name: value` lines, it "
            + ("is empty" if values is None else f"holds a {type(values).__name__} of another form")
        )
    # YAML reads run_id: 2026-11-22 as a date.
    return {
        name: value.isoformat() if isinstance(value, date) else value
        for name, value in values.items()
    }


def _what_yaml_says(error: yaml.YAMLError) -> str:
    """Leave out the lines themselves: what is no config may be a file of credentials."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return str(error)


_FOREIGN_VARIABLES = {
    "s3_endpoint_url": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "ray_address": ("RAY_ADDRESS",),
    "address": ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"),
}


def _defaults(kind: type[NoSettings], environ: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: next((environ[one] for one in variables if environ.get(one)), None)
        for name, variables in _FOREIGN_VARIABLES.items()
        if name in kind.model_fields
    }


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    known = {variable_of(name) for name in (*_NAMES, CONFIG)}
    for name in our_variables(environ).keys() - known:
        raise SettingError(
            f"environment variable {name} names no setting{similar(name, known)}; see --help"
        )


def our_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Pick the variables that are settings: those of a job travel with it to its cluster.

    Args:
        environ: Environment variables.
    """
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(PREFIX) and not _KUBERNETES.search(name)
    }


def _explain(error: ValidationError, kind: type[NoSettings], command: str) -> str:
    lines = []
    for one in error.errors():
        is_part = one["type"] == "missing" and len(one["loc"]) > 1
        name = ".".join(map(str, one["loc"][:-1] if is_part else one["loc"])) or "settings"
        # A key of AWS's has come into the wrong file.
        shown = "***" if _SECRET_NAME.search(name) else repr(one["input"])
        value = f"={shown}" if one["loc"] and (is_part or one["type"] != "missing") else ""
        problem = {
            "missing": "more values are wanted, as in [480,640]"
            if is_part
            else _missing(name, kind, command),
            "string_pattern_mismatch": RUN_ID_WORDS if name in _RUN_IDS else one["msg"],
            "extra_forbidden": f"is no setting{_similar(name)}; see --help for those there are",
        }.get(one["type"], one["msg"].removeprefix("Value error, ") + _as_share(one, kind))
        lines.append(f"{name}{value}: {problem}" if one["loc"] else problem)
    return "; ".join(lines)


def _missing(name: str, kind: type[NoSettings], command: str) -> str:
    if name in kind.marked(Mark.POSITIONAL):
        return f"is missing; give the {name}, as in `fcn {command} {name.upper()}`"
    return "is missing; give it as a flag, as FCN_... or in the config file"


def _as_share(error: ErrorDetails, kind: type[NoSettings]) -> str:
    """Ask whether a percentage was meant for a setting whose limits are 0 and 1."""
    field = kind.model_fields.get(str(error["loc"][0])) if error["loc"] else None
    marks = field.metadata if field else []
    limits = [getattr(one, "le", getattr(one, "lt", None)) for one in marks]
    percent = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%?\s*", str(error["input"]))
    if not percent or 1 not in limits or not 0 < float(percent[1]) <= 100:
        return ""
    return f"; it is a share of 0 to 1: did you mean {float(percent[1]) / 100:g}?"


def _similar(name: str) -> str:
    found = difflib.get_close_matches(name.replace("-", "_"), list(_NAMES), 1)
    return f" (did you mean {found[0]}?)" if found else ""


def environment() -> Mapping[str, str]:
    """Return the process's environment: the one place that reads it."""
    return os.environ
