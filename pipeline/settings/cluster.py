"""Settings of `submit` and `doctor`."""

import os
from pathlib import Path

from pydantic import Field, field_validator

from fcn_pipeline import others_in
from pipeline.redact import holds_secret
from pipeline.settings.label import LabelSettings
from pipeline.settings.shared import Group, NoSettings


class SubmitSettings(NoSettings):
    """Where to submit a command; the command and its own settings follow after `--`."""

    group = Group.CLUSTER

    wait: bool = Field(
        default=True,
        description="follow the job's log to its end and end with its exit code; else return once "
        "the cluster has taken it",
    )
    attach: bool = Field(
        default=False,
        description="where a job of the same run is waiting or at work, follow that one; else it "
        "is a reason to end with 7",
    )
    address: str | None = Field(
        None,
        description="URL of the cluster's dashboard, as in http://head:8265; default: "
        "RAY_API_SERVER_ADDRESS, then RAY_ADDRESS, then a Ray that runs on this machine",
    )
    working_dir: str | None = Field(
        None,
        description="folder, or URI of a .zip file, that the job runs in and all nodes get a copy "
        "of; default: none, the project is installed on the cluster",
    )
    python: str = Field(
        "python", min_length=1, description="name or path of Python on the cluster's head"
    )
    lost_after_s: float = Field(
        300.0,
        gt=0,
        le=86_400,
        description="seconds without an answer from the cluster after which a job is no longer "
        "followed; it may go on",
    )

    @field_validator("address")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is not None and "://" not in value and value != "auto":
            raise ValueError(
                "the dashboard's URL is wanted, as in http://head:8265; head:6379 is the address "
                "for --ray-address"
            )
        return value

    @field_validator("working_dir")
    @classmethod
    def _is_there(cls, value: str | None) -> str | None:
        if value is not None and holds_secret(value):
            raise ValueError(
                "it holds a password or a signature, which would stand in Ray's record of the job; "
                "give a folder, or the plain URI of a .zip file"
            )
        if value is not None and "://" not in value and not os.path.isdir(value):
            raise ValueError("there is no such folder; give one, or the URI of a .zip file")
        others = others_in(Path(value)) if value is not None and "://" not in value else []
        if others:
            raise ValueError(
                f"its own {', '.join(others)} would come before fcn-pipeline's on Python's path; "
                "rename it, or give a folder without it"
            )
        return value


class _DoctorFields(NoSettings):
    group = Group.LIMITS

    sample: int = Field(
        16,
        ge=0,
        le=10_000,
        description="images to label for the estimate, spread over those to do; nothing of them "
        "is written; 0 gives no estimate",
    )


class DoctorSettings(LabelSettings, _DoctorFields):
    """What to look at: the settings of `label`, and what the estimate rests on."""
