"""Settings of `verify`."""

from typing import Self

from pydantic import Field, model_validator

from pipeline.settings.shared import (
    RUN_ID_PATTERN,
    ConnectionFields,
    NoSettings,
    Positional,
    StoreSettings,
    Uri,
)


class _RunFields(NoSettings):
    output: Positional[Uri] = Field(
        description="folder or bucket prefix that the runs were written to"
    )
    run_id: str | None = Field(
        None,
        pattern=RUN_ID_PATTERN,
        description="only this run; default: the newest one, or every one with --repair",
    )
    all_: bool = Field(default=False, description="verify every run, oldest first")
    sample: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the masks that are read, 0 to 1, as in 0.001: those of the same "
        "images each time; all else is compared in full",
    )


class _RepairFields(NoSettings):
    repair: bool = Field(
        default=False,
        description="name what a crash of the machine has cut off, and with run_id files that are "
        "gone, and what has to go so that the same label command does it again",
    )
    dry_run: bool = Field(
        default=True, description="of repair: only name it; --no-dry-run removes it"
    )


class VerifySettings(StoreSettings, ConnectionFields, _RepairFields, _RunFields):
    """Which output to prove, and whether to repair it."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not self.repair and not self.dry_run:
            raise ValueError(
                "--no-dry-run is for --repair, without it nothing is removed; write --repair "
                "--no-dry-run, or leave it out"
            )
        if self.all_ and self.run_id is not None:
            raise ValueError("--all and --run-id exclude each other; give one of them")
        return self
