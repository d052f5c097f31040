"""What several commands have in common: the store, the cluster, the log, the output.

Nothing below `jobs/` reads the environment; `jobs/settings/` merges file, environment and flags.
Each class is a part of a command's settings, whose `group` is its heading in --help. What is true
of a field besides its type is marked where it is declared.
"""

import re
from dataclasses import replace
from enum import Enum
from inspect import get_annotations
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from pipeline.errors import SettingError
from pipeline.redact import holds_secret
from pipeline.store.access import Access
from pipeline.store.storage import Storage
from pipeline.store.uri import BUCKETS, has_wildcard, normalise_uri

LogFormat = Literal["text", "json"]
RUN_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
RUN_ID_WORDS = "up to 100 letters, digits and . _ - are wanted, as in 2026-11-22"

_T = TypeVar("_T")


def normalised(value: str, info: ValidationInfo) -> str:
    """Bring a place into the form of all URIs here. Raises SettingError."""
    name = str(info.field_name)
    if value.strip() and value != value.strip():
        raise SettingError(
            f"{name}={value!r} begins or ends with a space, or a line's end; leave it out"
        )
    return normalise_uri(value, name)


def normalised_input(value: str, info: ValidationInfo) -> str:
    """As `normalised`; a slash at the end says that a folder is meant, where both may be."""
    uri = normalised(value, info)
    has_key = "/" in uri.partition("://")[2]
    is_folder = uri.startswith(BUCKETS) and value.endswith("/") and has_key
    return f"{uri}/" if is_folder and not has_wildcard(uri) else uri


# A path, file:// or a bucket's URI as typed; whoever reads the setting finds it normalised.
Uri = Annotated[str, AfterValidator(normalised)]


class Mark(Enum):
    """What is true of a field besides its type."""

    POSITIONAL = "on the command line it is an argument without a flag"
    VALUE_OPTIONAL = "its flag may stand alone, as a switch does"
    TWO_WORDS = "its flag takes two words, which are one text in the environment and the file"
    NOT_DECIDING = "where and with how many hands the work is done, not what comes out"


Positional = Annotated[_T, Mark.POSITIONAL]
# Of a training: a run is continued with another value.
NotDeciding = Annotated[_T, Mark.NOT_DECIDING]


class Group(Enum):
    """The headings of --help and of docs/settings.md, in their order."""

    INPUT_AND_OUTPUT = "input and output"
    NETWORK = "network"
    TRAINING = "training"
    RECIPE = "recipe"
    LIMITS = "limits"
    SPEED = "speed"
    CLUSTER = "cluster"
    STORAGE = "storage"
    LOG = "log"


class NoSettings(BaseModel):
    """No settings but those of every command."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    group: ClassVar[Group] = Group.INPUT_AND_OUTPUT

    @classmethod
    def marked(cls, mark: Mark) -> set[str]:
        """Return the names of the fields with a mark."""
        return {name for name, field in cls.model_fields.items() if mark in field.metadata}

    @classmethod
    def groups(cls) -> dict[Group, list[str]]:
        """Return the names of the fields under their headings, as they are declared."""
        found: dict[Group, list[str]] = {group: [] for group in Group}
        for name in cls.model_fields:
            homes = (one for one in cls.__mro__ if name in get_annotations(one))
            found[next(one.group for one in homes if issubclass(one, NoSettings))].append(name)
        return {group: names for group, names in found.items() if names}


class StoreSettings(NoSettings):
    """How to reach object storage; credentials come the way the store's own tools find them."""

    group = Group.STORAGE

    s3_endpoint_url: NotDeciding[str | None] = Field(
        None,
        description="URL of the S3 server, if it is not AWS; default: AWS_ENDPOINT_URL_S3, "
        "then AWS_ENDPOINT_URL",
    )
    io_timeout_s: NotDeciding[float] = Field(
        60.0, gt=0, le=3600, description="seconds that one connection or read may stay silent"
    )
    io_attempts: NotDeciding[int] = Field(
        50,
        ge=1,
        le=1000,
        description="how often a request is tried at most, with growing pauses between",
    )
    io_patience_s: NotDeciding[float] = Field(
        300.0,
        gt=0,
        le=86_400,
        description="seconds for which a request is tried while the store throttles, fails or is "
        "silent; a store that has never answered is tried five times",
    )

    s3_kms_key_id: NotDeciding[str | None] = Field(
        None,
        min_length=1,
        description="key of AWS KMS (id, ARN or alias) that what is written to S3 is encrypted "
        "with; default: what the bucket is set to",
    )
    gs_endpoint_url: NotDeciding[str | None] = Field(
        None, description="URL of the server that gs:// means, if it is not Google"
    )
    gs_kms_key: NotDeciding[str | None] = Field(
        None,
        pattern=r"^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$",
        description="key of Google's Cloud KMS that what is written to gs:// is encrypted with, as "
        "in projects/P/locations/L/keyRings/R/cryptoKeys/K; default: what the bucket is set to",
    )
    az_account: NotDeciding[str | None] = Field(
        None,
        pattern=r"^[a-z0-9]{3,24}$",
        description="storage account of az://CONTAINER/PATH; default: AZURE_STORAGE_ACCOUNT_NAME",
    )
    az_endpoint_url: NotDeciding[str | None] = Field(
        None,
        description="URL of the storage account's blobs, if it is not at blob.core.windows.net",
    )

    @field_validator("s3_endpoint_url", "gs_endpoint_url", "az_endpoint_url")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if holds_secret(value):
            raise ValueError(
                "an endpoint is a scheme, a host and a port; credentials belong where the store's "
                "tools find them (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, "
                "GOOGLE_APPLICATION_CREDENTIALS, AZURE_CLIENT_ID, a role)"
            )
        if not re.fullmatch(r"https?://[^/?#@\s]+(/[^?#\s]*)?", value):
            raise ValueError("an endpoint is a URL, as in http://127.0.0.1:9000")
        return value

    def storage(self) -> Storage:
        """Open the storage that these settings describe."""
        return Storage(
            self.s3_endpoint_url,
            self.io_timeout_s,
            self.io_attempts,
            patience_s=self.io_patience_s,
            access=Access(kms_key_id=self.s3_kms_key_id, gs_kms_key=self.gs_kms_key),
            gs_endpoint_url=self.gs_endpoint_url,
            az_endpoint_url=self.az_endpoint_url,
            az_account=self.az_account,
        )


class InputAccessFields(NoSettings):
    """How to enter the bucket of the images, which may be another's."""

    group = Group.STORAGE

    input_anonymous: bool = Field(
        default=False,
        description="read the input without credentials, as public buckets want it; the output is "
        "written with them",
    )
    requester_pays: bool = Field(
        default=False,
        description="agree to pay for reading the input, where its bucket's owner wants that (S3, "
        "and Google Cloud Storage with gs_billing_project)",
    )
    gs_billing_project: str | None = Field(
        None,
        min_length=1,
        description="Google's project that pays for reading the input, with requester_pays",
    )

    def for_input(self, storage: Storage) -> Storage:
        """Return a storage that enters the input as these settings say.

        Args:
            storage: As the output is entered.
        """
        access = Access(
            self.input_anonymous,
            self.requester_pays,
            gs_billing_project=self.gs_billing_project,
        )
        return replace(storage, input_access=access)


class _OutputFields(NoSettings):
    output: Positional[Uri] = Field(
        description="folder or bucket prefix that the runs were written to"
    )
    run_id: str | None = Field(
        None, pattern=RUN_ID_PATTERN, description="only this run; default: every run"
    )


class OutputSettings(StoreSettings, _OutputFields):
    """Which output to read."""


class LogFields(NoSettings):
    """What the log looks like."""

    group = Group.LOG

    log_interval_s: NotDeciding[float] = Field(
        30.0,
        gt=0,
        le=86_400,
        description="seconds between two lines of progress where there is no terminal",
    )
    log_format: NotDeciding[LogFormat] = Field(
        "text",
        description="of the log on stderr: text for people, or json: one object per line with "
        "timestamp (UTC), level, logger, message, run, shard and attempt, and a line per "
        "committed shard in place of a progress bar",
    )


class ConnectionFields(LogFields):
    """Which cluster does the work, and how long is waited for it."""

    group = Group.CLUSTER

    ray_address: NotDeciding[str | None] = Field(
        None,
        description="Ray cluster to use; default: RAY_ADDRESS, as ray job submit sets it, else "
        "a Ray started for this run on this machine (`verify` and `export` then do without)",
    )
    max_wait_minutes: NotDeciding[float] = Field(
        1440.0,
        gt=0,
        description="minutes without room on the cluster, or without any progress, after which "
        "the run ends with 5",
    )


class JobFields(ConnectionFields):
    """What all jobs on Ray have in common."""

    group = Group.CLUSTER

    lock_lease_s: NotDeciding[float] = Field(
        30.0,
        gt=0,
        le=86_400,
        description="seconds without a sign of life after which the lock of a killed run is "
        "taken over",
    )
