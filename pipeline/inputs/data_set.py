"""A labelled data set, its classes and the coding of its ground truth: for `train`, `evaluate`."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from fcn.weights import CheckpointError
from fcn.weights.classes import (
    CITYSCAPES_CLASSES,
    CITYSCAPES_IDS,
    VOC_CLASSES,
    ClassLabel,
    TruthValues,
    parse_classes,
    parse_truth_values,
)
from pipeline.errors import InputError, SettingError, StoreError
from pipeline.images.ground_truth import Coding, TruthError, is_coloured
from pipeline.images.masks import IGNORE_INDEX
from pipeline.inputs.layouts import find_labelled
from pipeline.inputs.samples import Labelled, Sample
from pipeline.store.storage import Storage


@dataclass(frozen=True)
class DataSet:
    """A labelled data set."""

    found: Labelled
    classes: tuple[ClassLabel, ...]
    coding: Coding


def open_data_set(
    storage: Storage, data: str, classes: str | None, truth_coding: str | None, split: str
) -> DataSet:
    """Find a data set, its classes, and how its ground truth names them.

    Args:
        storage: Where it is.
        data: The setting.
        classes: The setting.
        truth_coding: The setting.
        split: Whose first truth tells the coding, where no setting does.

    Raises:
        InputError: There is no data set.
        SettingError: Its classes are not known.
    """
    found = find_labelled(storage, data)
    known, values = _classes(storage, found, classes)
    kind = truth_coding or ("ids" if values.ids else _coding(storage, found, split))
    ids = values.ids or CITYSCAPES_IDS
    if kind == "ids" and not values.ids and found.layout != "cityscapes":
        raise SettingError(
            'truth_coding=ids needs the ids of each class in the classes file ("ids": [7, 8]); '
            "only Cityscapes' are known"
        )
    colours = _colours(known, values) if kind == "colors" else {}
    return DataSet(found, known, Coding(kind, len(known), ids, colours))


def _colours(
    classes: tuple[ClassLabel, ...], values: TruthValues
) -> dict[tuple[int, int, int], int]:
    own = {label.color: index for index, label in enumerate(classes)}
    if len(own) < len(classes):
        raise SettingError("truth_coding=colors needs a color of its own for every class")
    if both := [one for one, index in values.colors.items() if own.get(one, index) != index]:
        raise SettingError(f"colour {both[0]} stands for two classes in the classes file")
    further = {
        one: IGNORE_INDEX if index is None else index for one, index in values.colors.items()
    }
    return own | further


def as_table(samples: Sequence[Sample]) -> pa.Table:
    """Lay samples out as a table with the columns image_uri and mask_uri."""
    return pa.table(
        {
            "image_uri": pa.array([sample.image_uri for sample in samples], pa.string()),
            "mask_uri": pa.array([sample.mask_uri for sample in samples], pa.string()),
        }
    )


def _classes(
    storage: Storage, found: Labelled, classes: str | None
) -> tuple[tuple[ClassLabel, ...], TruthValues]:
    uri = classes or found.classes_uri
    nothing = TruthValues({}, {})
    if uri is not None:
        try:
            text = storage.read(uri)
            return parse_classes(text), parse_truth_values(text)
        except CheckpointError as error:
            raise SettingError(f"classes={uri!r}: {error}") from error
        except StoreError as error:
            if error.refused:
                raise SettingError(f"classes={uri!r}: {error}") from error
            raise
    if found.layout == "voc":
        return VOC_CLASSES, nothing
    if found.layout == "cityscapes":
        return CITYSCAPES_CLASSES, nothing
    raise SettingError(
        "the classes are not known: put a classes.json beside the data, or name one with classes"
    )


def _coding(storage: Storage, found: Labelled, split: str) -> str:
    if found.layout == "cityscapes":
        return "ids" if found.raw_ids else "indices"
    first = found.split(split)[0]
    try:
        return "colors" if is_coloured(storage.read(first.mask_uri)) else "indices"
    except TruthError as error:
        raise InputError(f"{first.mask_uri}: {error}") from error
    except StoreError as error:
        if error.refused:
            hint = "; relative paths of a manifest start at the current directory"
            is_manifest = found.layout == "manifest"
            raise InputError(error.message + hint * is_manifest) from error
        raise
