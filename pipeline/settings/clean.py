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
    dry_run: bool = Field(
        default=True, description="only name what would go; --no-dry-run removes it for good"
    )


class CleanSettings(StoreSettings, _CleanFields):
    """Remove runs that newer ones have replaced; needs the right to delete."""
