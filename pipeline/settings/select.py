"""Settings of `select`."""

import re
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from pipeline.settings.shared import (
    RUN_ID_PATTERN,
    Group,
    InputAccessFields,
    Mark,
    NoSettings,
    Positional,
    StoreSettings,
    Uri,
)
from pipeline.store.storage import Storage

_RANGE = re.compile(r"(\S.*)\s+(\d*\.?\d+)?\.\.(\d*\.?\d+)?\s*")


class AnsweredFields(NoSettings):
    """Whose answers are read."""

    output: Positional[Uri] = Field(
        description="folder or bucket prefix that the runs were written to"
    )
    run_id: str | None = Field(
        None,
        pattern=RUN_ID_PATTERN,
        description="only this run; default: every image's newest answer in the finished runs of "
        "the newest one's network",
    )


class _SelectFields(AnsweredFields):
    to: Uri = Field(description="where to: a file NAME.parquet; local or in a bucket")
    least_confident: int | None = Field(
        None, ge=1, description="number of images to take of the lowest mean confidence"
    )
    random: int | None = Field(
        None, ge=1, description="number of images to take at random, by a hash of image_id and seed"
    )
    class_: str | None = Field(
        None, description="only images in which the class of this name is present"
    )
    class_share: Annotated[str | None, Mark.TWO_WORDS] = Field(
        None,
        description="only images of whose pixels a class has a share in a range, 0 to 1, as in "
        "sky 0.1..0.5, sky 0.1.. or sky ..0.5",
    )
    failed: bool = Field(
        default=False, description="take the images that failed; default: those with a mask"
    )
    max_per_folder: int | None = Field(
        None, ge=1, description="number of images to take of one folder at most"
    )
    not_near_duplicates: bool = Field(
        default=False,
        description="leave out pictures that look like one that was taken before (a perceptual "
        "hash); of least_confident and random up to ten times as many pictures are read",
    )
    seed: int = Field(0, ge=0, description="of random: another number draws other images")


class ReadingFields(NoSettings):
    """How pictures and masks are read."""

    group = Group.SPEED

    io_threads: int = Field(
        16, ge=1, le=256, description="objects that are read, or written, at a time"
    )


def _check_range(lower: str | None, upper: str | None) -> None:
    """Refuse limits that no image can be between. Raises ValueError."""
    limits = (float(lower or 0), float(upper or 1))
    if max(limits) > 1:
        shares = "..".join(f"{float(one) / 100:g}" if one else "" for one in (lower, upper))
        meant = f": did you mean {shares}?" if max(limits) <= 100 else ""
        raise ValueError(f"shares are from 0 to 1{meant}")
    if limits[0] > limits[1]:
        raise ValueError(f"the lower share comes first: {upper}..{lower}")


class SelectSettings(InputAccessFields, StoreSettings, ReadingFields, _SelectFields):
    """Which images of an output people should look at."""

    @field_validator("to")
    @classmethod
    def _is_parquet(cls, value: str) -> str:
        if not value.lower().endswith(".parquet"):
            raise ValueError("a file NAME.parquet is wanted, which label takes as a manifest")
        return value

    @field_validator("class_share")
    @classmethod
    def _is_range(cls, value: str | None) -> str | None:
        found = value and _RANGE.fullmatch(value)
        if value is None:
            return value
        if not found or not (found[2] or found[3]):
            raise ValueError("a class and a range of shares is wanted, as in sky 0.1..0.5")
        _check_range(found[2], found[3])
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.failed and (self.least_confident or self.class_ or self.class_share):
            raise ValueError("failed images have no mask: no confidence, and no class")
        if self.not_near_duplicates and (self.failed or not (self.least_confident or self.random)):
            raise ValueError(
                "not_near_duplicates reads pictures; say how many are wanted with least_confident "
                "or random, of images that have a mask"
            )
        return self

    @property
    def share_range(self) -> tuple[str, float, float] | None:
        """Name of the class, least and greatest share of `class_share`."""
        found = self.class_share and _RANGE.fullmatch(self.class_share)
        return (found[1], float(found[2] or 0), float(found[3] or 1)) if found else None

    def storage(self) -> Storage:
        """Open the storage, which enters the input as these settings say."""
        return self.for_input(super().storage())
