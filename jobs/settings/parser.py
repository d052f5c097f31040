"""Settings of a command: file (--config) < environment (FCN_...) < flags."""

import argparse
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, TypeVar

import yaml
from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    create_model,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from jobs.settings.demo import DemoSettings
from pipeline.errors import ErrorCode, SettingError, StoreError
from pipeline.settings.cluster import DoctorSettings, SubmitSettings
from pipeline.settings.label import LabelSettings
from pipeline.settings.shared import RUN_ID_WORDS, LogFormat, OutputSettings, StoreSettings
from pipeline.settings.train import EvaluateSettings, TrainSettings
from pipeline.settings.weights import ImportSettings
from pipeline.store.uri import normalise_uri

_Settings = TypeVar("_Settings", bound=BaseModel)

_PREFIX = "FCN_"
# Kubernetes tells every pod of a service named fcn-... in variables of these endings.
_KUBERNETES = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT(_\d+_\w+)?$")
_SECRET_NAME = re.compile(r"key|secret|token|password|credential", re.IGNORECASE)
_CONFIG_HELP = "YAML file with settings (local, file:// or s3://); flags and FCN_... go before it"


_KINDS: tuple[type[BaseModel], ...] = (
    LabelSettings,
    OutputSettings,
    ImportSettings,
    TrainSettings,
    EvaluateSettings,
    DoctorSettings,
    SubmitSettings,
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
        SettingError: A value is wrong, a key is unknown, or the file can't be read.
        SystemExit: Flags that do not parse, with 2; or after --help, with 0.
    """
    _refuse_unknown_variables(environ)
    before = _before_the_rest(argv, environ)
    file_values = _read_config(before.config, before.s3_endpoint_url)
    # One file may serve all commands: what is a setting of another one is no mistake here.
    others = _NAMES.keys() - kind.model_fields.keys()
    file_values = {name: file_values[name] for name in file_values if name not in others}
    parser = _parser(kind, command, list(argv), file_values, environ)
    try:
        merged = parser()
        given = {name: getattr(merged, name) for name in merged.model_fields_set - {"config"}}
        return kind(**{**_defaults(kind, environ), **given})
    except ValidationError as error:
        raise SettingError(_explain(error)) from error


class _GivenEnvironment(EnvSettingsSource):
    """Reads the environment that it is given, not that of the process."""

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(settings_cls, env_ignore_empty=True)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._environ.items() if value}


def _parser(
    kind: type[BaseModel],
    command: str,
    argv: list[str],
    file_values: dict[str, Any],
    environ: Mapping[str, str],
) -> type[BaseSettings]:
    class WithSources(kind, BaseSettings):  # type: ignore[valid-type, misc]  # kind is a variable
        model_config = SettingsConfigDict(
            env_prefix=_PREFIX,
            cli_parse_args=argv,
            cli_prog_name=f"fcn {command}",
            cli_kebab_case=True,
            cli_implicit_flags=True,
            cli_hide_none_type=True,
            cli_use_class_docs_for_groups=True,
            extra="forbid",
        )

        @classmethod
        def settings_customise_sources(  # type: ignore[override]  # the others are not used
            cls, settings_cls: type[BaseSettings], **_: PydanticBaseSettingsSource
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (
                _GivenEnvironment(settings_cls, environ),
                InitSettingsSource(settings_cls, init_kwargs=file_values),
            )

    return create_model(
        kind.__name__,
        __base__=WithSources,
        __doc__=kind.__doc__,
        config=(str | None, Field(None, description=_CONFIG_HELP)),
    )


def first_log_format(argv: Sequence[str], environ: Mapping[str, str]) -> LogFormat:
    """Say how the log looks until the settings are read, of which a config file may have more.

    Args:
        argv: The command and its flags, right or wrong.
        environ: Environment variables.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--log-format", default=environ.get(f"{_PREFIX}LOG_FORMAT"), nargs="?")
    return "json" if parser.parse_known_args(list(argv))[0].log_format == "json" else "text"


def _before_the_rest(argv: Sequence[str], environ: Mapping[str, str]) -> argparse.Namespace:
    """Parse what must be known to read the config file."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", default=environ.get(f"{_PREFIX}CONFIG") or None)
    endpoint = (
        environ.get(f"{_PREFIX}S3_ENDPOINT_URL")
        or _defaults(StoreSettings, environ)["s3_endpoint_url"]
    )
    parser.add_argument("--s3-endpoint-url", default=endpoint)
    return parser.parse_known_args(list(argv))[0]


def _read_config(uri: str | None, s3_endpoint_url: str | None) -> dict[str, Any]:
    if uri is None:
        return {}
    try:
        storage = StoreSettings.model_validate({"s3_endpoint_url": s3_endpoint_url}).storage()
        values = yaml.safe_load(storage.read(normalise_uri(uri, "config")))
    except ValidationError as error:
        raise SettingError(_explain(error)) from error
    except StoreError as error:
        if error.code in (ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN):
            raise SettingError(f"config={uri!r}: {error}") from error
        raise
    except yaml.YAMLError as error:
        raise SettingError(f"config={uri!r} is no YAML: {_what_yaml_says(error)}") from error
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


def _defaults(kind: type[BaseModel], environ: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: next((environ[one] for one in variables if environ.get(one)), None)
        for name, variables in _FOREIGN_VARIABLES.items()
        if name in kind.model_fields
    }


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    known = {f"{_PREFIX}{name.upper()}" for name in (*_NAMES, "config")}
    for name in our_variables(environ).keys() - known:
        raise SettingError(f"environment variable {name} names no setting; see --help")


def our_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Pick the variables that are settings: those of a job travel with it to its cluster.

    Args:
        environ: Environment variables.
    """
    return {
        name: value
        for name, value in environ.items()
        if name.startswith(_PREFIX) and not _KUBERNETES.search(name)
    }


def _explain(error: ValidationError) -> str:
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
            else "is missing; give it as a flag, as FCN_... or in the config file",
            "string_pattern_mismatch": RUN_ID_WORDS if name in _RUN_IDS else one["msg"],
            "extra_forbidden": f"is no setting{_similar(name)}; see --help for those there are",
        }.get(one["type"], one["msg"].removeprefix("Value error, "))
        lines.append(f"{name}{value}: {problem}" if one["loc"] else problem)
    return "; ".join(lines)


def _similar(name: str) -> str:
    found = difflib.get_close_matches(name.replace("-", "_"), list(_NAMES), 1)
    return f" (did you mean {found[0]}?)" if found else ""


def environment() -> Mapping[str, str]:
    """Give the process's environment: the one place that reads it."""
    return os.environ
