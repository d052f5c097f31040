"""Settings of `evaluate`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.settings.data import CLASSES_HELP, DATA_HELP, TRUTH_HELP, check_one_way
from pipeline.settings.label import LabellingSettings, LabelSettings
from pipeline.settings.shared import NoSettings, Uri


class _SplitFields(NoSettings):
    data: Uri = Field(description=DATA_HELP)
    split: str = Field("val", description="which split to label and to score")
    val_match: str | None = Field(
        None,
        description="regular expression: only images in whose URI it is found, names of folders "
        "included, which train with the same setting holds out",
    )
    val_fold: str | None = Field(
        None,
        description="K/N: only the part of the split that train with the same setting holds out",
    )
    val_share: float = Field(
        0.0, ge=0, lt=1, description="only the share of the split, 0 to 1, that train holds out"
    )
    val_group: str | None = Field(
        None,
        description="regular expression: what stays together in folds and shares, as for train",
    )
    seed: int = Field(0, ge=0, lt=1 << 32, description="of folds and shares, that of train")
    classes: Uri | None = Field(None, description=CLASSES_HELP)
    truth_coding: Literal["indices", "ids", "colors"] | None = Field(None, description=TRUTH_HELP)


class EvaluateSettings(LabellingSettings, _SplitFields):
    """What to evaluate, on which labelled images: `label` on a split, and the comparison."""

    @model_validator(mode="after")
    def _is_one_part(self) -> Self:
        check_one_way(self)
        return self

    def label_settings(self, input_uri: str) -> LabelSettings:
        """Return the settings of the labelling that the evaluation rests on.

        Args:
            input_uri: The manifest of the split's images.
        """
        given = {name: getattr(self, name) for name in LabellingSettings.model_fields}
        # Images of one name with different endings are no mistake here.
        return LabelSettings(input=input_uri, mask_name="full", **given)
