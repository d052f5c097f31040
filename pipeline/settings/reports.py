"""What the commands that show runs are asked for: `runs` and `report`."""

from typing import Self

from pydantic import Field, model_validator

from pipeline.settings.label import MAX_REPORT_IMAGES
from pipeline.settings.shared import (
    RUN_ID_PATTERN,
    InputAccessFields,
    NoSettings,
    Positional,
    StoreSettings,
    Uri,
)
from pipeline.store.storage import Storage


class _RunsFields(NoSettings):
    output: Positional[Uri] = Field(
        description="folder or bucket prefix that the runs were written to"
    )
    json_: bool = Field(default=False, description="print JSON, for programs")


class RunsSettings(StoreSettings, _RunsFields):
    """List the runs of an output, newest first."""


class _ReportFields(_RunsFields):
    run_id: str | None = Field(
        None, pattern=RUN_ID_PATTERN, description="the run to show; default: the newest one"
    )
    all_: bool = Field(default=False, description="show every run, oldest first")

    html: bool = Field(
        default=False, description="write the run's report.html anew, and say where it is"
    )
    report_images: int | None = Field(
        None,
        ge=0,
        le=MAX_REPORT_IMAGES,
        description="of --html: images that the page may show, in all; 0 copies none; default: as "
        "the command said that began the run",
    )


class ReportSettings(InputAccessFields, StoreSettings, _ReportFields):
    """Show what a run has done."""

    def storage(self) -> Storage:
        """Open the storage, which enters the input as these settings say."""
        return self.for_input(super().storage())

    @model_validator(mode="after")
    def _is_one_form(self) -> Self:
        if self.html and self.json_:
            raise ValueError("html and json are two forms of the report; ask for one of them")
        return self
