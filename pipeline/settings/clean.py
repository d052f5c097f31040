"""Settings of `clean`."""

from pydantic import Field

from pipeline.settings.shared import NoSettings, Positional, StoreSettings, Uri


class _CleanFields(NoSettings):
    output: Positional[Uri] = Field(
        description="folder or bucket prefix that the runs were written to"
    )
    keep_newest: bool = Field(
        default=False,
        description="name also the finished runs of which each image has a newer answer by the "
        "same network, and a mask in another run where it had one; without it only what removals "
        "that were cut off have left",
    )
    any_network: bool = Field(
        default=False,
        description="of keep_newest: the answers of other networks count as newer ones, too",
    )
    unfinished_days: float | None = Field(
        default=None,
        ge=1,
        le=36_500,
        description="name also the runs that began so many days ago and were never finished: each "
        "costs every start some requests; their images count as not done already",
    )
    dry_run: bool = Field(
        default=True, description="only name what would go; --no-dry-run removes it for good"
    )


class CleanSettings(StoreSettings, _CleanFields):
    """Remove runs that newer ones have replaced, or nobody finished; needs the right to delete."""
