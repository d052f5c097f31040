"""Settings of a command: file (--config) < environment (FCN_...) < flags."""

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import yaml
from pydantic import Field, ValidationError, create_model
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from pipeline.config import LabelSettings, OutputSettings, StoreSettings
from pipeline.errors import ErrorCode, SettingError, StoreError
from pipeline.storage import normalise_uri

_Settings = TypeVar("_Settings", bound=StoreSettings)

_PREFIX = "FCN_"
_CONFIG_HELP = "YAML file with settings (local, file:// or s3://); flags and FCN_... go before it"


def read_settings(
    kind: type[_Settings], command: str, argv: Sequence[str], environ: Mapping[str, str]
) -> _Settings:
    """Merge a command's settings from file, environment and flags, and check them.

    Args:
        kind: The settings' class.
        command: For the usage line.
        argv: Flags, without the command.
        environ: `FCN_` and a field's name in capitals sets it; AWS_ENDPOINT_URL(_S3) and
            RAY_ADDRESS fill what is still open.

    Raises:
        SettingError: A value is wrong, a key is unknown, or the file can't be read.
        SystemExit: Flags that do not parse, with 2; or after --help, with 0.
    """
    _refuse_unknown_variables(environ)
    file_values = _read_config(_config_uri(argv, environ), environ)
    parser = _parser(kind, command, list(argv), file_values)
    try:
        merged = parser()
        given = {name: getattr(merged, name) for name in merged.model_fields_set - {"config"}}
        return kind(**{**_defaults(kind, environ), **given})
    except ValidationError as error:
        raise SettingError(_explain(error)) from error


def _parser(
    kind: type[StoreSettings], command: str, argv: list[str], file_values: dict[str, Any]
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
                EnvSettingsSource(settings_cls, env_ignore_empty=True),
                InitSettingsSource(settings_cls, init_kwargs=file_values),
            )

    return create_model(
        kind.__name__,
        __base__=WithSources,
        __doc__=kind.__doc__,
        config=(str | None, Field(None, description=_CONFIG_HELP)),
    )


def _config_uri(argv: Sequence[str], environ: Mapping[str, str]) -> str | None:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", default=environ.get(f"{_PREFIX}CONFIG"))
    uri: str | None = parser.parse_known_args(list(argv))[0].config
    return uri


def _read_config(uri: str | None, environ: Mapping[str, str]) -> dict[str, Any]:
    if uri is None:
        return {}
    storage = StoreSettings(**_defaults(StoreSettings, environ)).storage()
    try:
        values = yaml.safe_load(storage.read(normalise_uri(uri, "config")))
    except StoreError as error:
        if error.code in (ErrorCode.NOT_FOUND, ErrorCode.FORBIDDEN):
            raise SettingError(f"config={uri!r}: {error}") from error
        raise
    except yaml.YAMLError as error:
        raise SettingError(f"config={uri!r} is no YAML: {error}") from error
    if not isinstance(values, dict):
        raise SettingError(f"config={uri!r} must hold `name: value` lines, it holds {values!r}")
    return values


def _defaults(kind: type[StoreSettings], environ: Mapping[str, str]) -> dict[str, Any]:
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or None
    values: dict[str, Any] = {"s3_endpoint_url": endpoint}
    if "ray_address" in kind.model_fields:
        values["ray_address"] = environ.get("RAY_ADDRESS") or None
    return values


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    fields = {*LabelSettings.model_fields, *OutputSettings.model_fields, "config"}
    known = {f"{_PREFIX}{name.upper()}" for name in fields}
    for name in environ:
        if name.startswith(_PREFIX) and name not in known:
            raise SettingError(f"environment variable {name} names no setting; see --help")


def _explain(error: ValidationError) -> str:
    lines = []
    for one in error.errors():
        name = ".".join(str(part) for part in one["loc"]) or "settings"
        value = f"={one['input']!r}" if one["loc"] and one["type"] != "missing" else ""
        problem = {
            "missing": "is missing; give it as a flag, as FCN_... or in the config file",
            "extra_forbidden": "is no setting of this command; see --help for those there are",
        }.get(one["type"], one["msg"])
        lines.append(f"{name}{value}: {problem}")
    return "; ".join(lines)


def environment() -> Mapping[str, str]:
    """Give the process's environment: the one place that reads it."""
    return os.environ
