"""What the commands that show runs are asked for: `runs` and `report`."""

from pydantic import Field

from pipeline.settings.shared import RUN_ID_PATTERN, NoSettings, Positional, StoreSettings, Uri


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


class ReportSettings(StoreSettings, _ReportFields):
    """Show what a run has done."""
