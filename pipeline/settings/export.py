"""Settings of `export`."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.settings.select import AnsweredFields, ReadingFields
from pipeline.settings.shared import ConnectionFields, InputAccessFields, StoreSettings, Uri
from pipeline.store.storage import Storage

FormatName = Literal["voc", "coco", "label-studio", "webdataset", "hf"]
_FILES = (".json", ".tar", ".zip", ".parquet")


class _ExportFields(AnsweredFields):
    format: FormatName = Field(
        description="form to write: voc (what CVAT and Datumaro import, and train), coco, "
        "label-studio (tasks with predictions), webdataset (tar shards) or hf (Parquet for "
        "Hugging Face's datasets)"
    )
    to: Uri = Field(
        description="an empty folder or prefix to write to, not below the images' own; local "
        "or in a bucket"
    )
    selection: Uri | None = Field(
        None,
        description="only the images in this table, which has a column `uri`: of select, or any "
        "manifest; default: all",
    )
    copy_images: bool = Field(
        default=True,
        description="of voc and coco: write the images, too; else only what is said of them",
    )
    image_url_prefix: str | None = Field(
        None,
        description="of label-studio: what stands before an image's key to make the address that "
        "people's browsers load; default: the image's URI",
    )


class ExportSettings(
    InputAccessFields, StoreSettings, ReadingFields, ConnectionFields, _ExportFields
):
    """Write images and masks in another program's form."""

    @field_validator("to")
    @classmethod
    def _is_folder(cls, value: str) -> str:
        if value.lower().endswith(_FILES):
            raise ValueError("names a file; export writes a folder")
        return value

    @model_validator(mode="after")
    def _fits_the_format(self) -> Self:
        if self.image_url_prefix is not None and self.format != "label-studio":
            raise ValueError(f"image_url_prefix is for label-studio, not for {self.format}")
        if not self.copy_images and self.format not in ("voc", "coco"):
            raise ValueError(f"copy_images is for voc and coco, not for {self.format}")
        return self

    def storage(self) -> Storage:
        """Open the storage, which enters the input as these settings say."""
        return self.for_input(super().storage())
