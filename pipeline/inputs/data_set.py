"""A labelled data set, its classes and the coding of its ground truth: for `train`, `evaluate`."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from fcn.weights import CheckpointError
from fcn.weights.classes import (
    CITYSCAPES_CLASSES,
    CITYSCAPES_IDS,
    VOC_CLASSES,
    ClassLabel,
    TruthValues,
    check_labels,
    parse_classes,
    parse_truth_values,
    voc_color,
)
from pipeline.errors import InputError, SettingError, StoreError
from pipeline.images.ground_truth import Coding, TruthError, is_coloured, is_grey
from pipeline.images.masks import IGNORE_INDEX
from pipeline.inputs.coco import Coco
from pipeline.inputs.drawn import write_truths
from pipeline.inputs.labelmap import BACKGROUND, LabelMap, class_indices, classes_of
from pipeline.inputs.layouts import find_labelled
from pipeline.inputs.samples import UNDIVIDED, Labelled, Sample
from pipeline.store.cells import read_image
from pipeline.store.storage import Storage, sha256_hex


@dataclass(frozen=True)
class DataSet:
    """A labelled data set."""

    found: Labelled
    classes: tuple[ClassLabel, ...]
    coding: Coding


@dataclass(frozen=True)
class Asked:
    """What the settings say of a data set.

    Attributes:
        data: The setting.
        split: Whose first truth tells the coding, where no setting does; None takes any.
        classes: The setting.
        truth_coding: The setting.
        drawn_to: The folder for ground truth that is drawn first.
        known: The classes, where they are known already; labels that have names go by them.
    """

    data: str
    split: str | None
    classes: str | None = None
    truth_coding: str | None = None
    drawn_to: str = ""
    known: tuple[ClassLabel, ...] | None = None


def open_data_set(storage: Storage, asked: Asked) -> DataSet:
    """Find a data set, its classes, and how its ground truth names them.

    Args:
        storage: Where it is.
        asked: What the settings say of it.

    Raises:
        InputError: There is no data set.
        SettingError: Its classes are not known.
    """
    found = find_labelled(storage, asked.data)
    known, values = _classes(storage, found, asked)
    if found.coco is not None:
        return DataSet(_drawn(storage, found, known, asked), known, Coding("indices", len(known)))
    if found.labelmap is not None:
        return DataSet(found, known, _coding_by_labelmap(storage, found, known, asked))
    kind = asked.truth_coding or ("ids" if values.ids else _kind(storage, found, asked.split))
    ids = values.ids or CITYSCAPES_IDS
    if kind == "ids" and not values.ids and found.layout != "cityscapes":
        raise SettingError(
            'truth_coding=ids needs the ids of each class in the classes file ("ids": [7, 8]); '
            "only Cityscapes' are known"
        )
    colours = _colours(known, values) if kind == "colors" else {}
    return DataSet(found, known, Coding(kind, len(known), ids, colours))


def _drawn(
    storage: Storage, found: Labelled, classes: tuple[ClassLabel, ...], asked: Asked
) -> Labelled:
    """Draw COCO's shapes; what is not drawn is `background` where that is a class, else 255."""
    # Only who has shapes to draw needs pycocotools.
    from pipeline.inputs.drawing import draw  # noqa: PLC0415

    coco, names = found.coco, [label.name for label in classes]
    assert coco is not None
    indices = class_indices(coco.colours, names, coco.uri)
    filled = BACKGROUND in names and not coco.draws_background
    elsewhere = names.index(BACKGROUND) if filled else IGNORE_INDEX
    deciding = json.dumps([coco.sha256, names, elsewhere]).encode()
    every = [image for some in coco.images.values() for image in some]
    masks = write_truths(
        storage,
        f"{asked.drawn_to}/{sha256_hex(deciding)[:16]}",
        (partial(draw, image, indices, elsewhere) for image in every),
        [label.color for label in classes],
    )
    # To its end, where it writes that all are drawn.
    drawn = iter(list(masks))
    splits = {
        name: sorted(
            (Sample(image.image_uri, next(drawn)) for image in some), key=lambda one: one.image_uri
        )
        for name, some in coco.images.items()
    }
    called = {image.image_uri: image.source or image.name for image in every}
    return Labelled("coco", splits, found.classes_uri, names=called)


def _coding_by_labelmap(
    storage: Storage, found: Labelled, classes: tuple[ClassLabel, ...], asked: Asked
) -> Coding:
    """Read colours as labelmap.txt says; in grey files, values are the numbers of its lines.

    A palette is read by its colours: which number has which is up to the program that wrote it.
    """
    assert found.labelmap is not None
    known = [label.name for label in classes]
    indices = class_indices(found.labelmap.colours, known, found.labelmap.uri)
    kind = asked.truth_coding or (
        "ids" if _first(storage, found, asked.split, is_grey) else "colors"
    )
    ids = {line: index for line, index in enumerate(indices.values()) if index is not None}
    colours = {
        found.labelmap.colours[name]: IGNORE_INDEX if index is None else index
        for name, index in indices.items()
    }
    return Coding(kind, len(classes), ids, colours)


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
    """Lay samples out as a table whose columns are the fields of `Sample`."""
    types = {
        "image_uri": pa.string(),
        "mask_uri": pa.string(),
        "mask_offset": pa.int64(),
        "mask_bytes": pa.int64(),
        "image_offset": pa.int64(),
        "image_bytes": pa.int64(),
        "image_copy": pa.string(),
    }
    return pa.table(
        {
            name: pa.array([getattr(sample, name) for sample in samples], kind)
            for name, kind in types.items()
        }
    )


def _classes(
    storage: Storage, found: Labelled, asked: Asked
) -> tuple[tuple[ClassLabel, ...], TruthValues]:
    uri = asked.classes or found.classes_uri
    has_names = found.coco is not None or found.labelmap is not None
    if asked.known is not None and (uri is None or has_names):
        return asked.known, TruthValues({}, {})
    if uri is None:
        return _own_classes(found), TruthValues({}, {})
    read = _read_classes(storage, uri)
    if asked.known is not None:
        _check_same(read[0], asked.known, uri)
    return read


def _check_same(own: tuple[ClassLabel, ...], known: tuple[ClassLabel, ...], uri: str) -> None:
    ours, theirs = ([label.name for label in labels] for labels in (known, own))
    if ours != theirs:
        raise SettingError(
            f"{uri} has the classes {', '.join(theirs)}, and data has {', '.join(ours)}; both need "
            "the same, in the same order"
        )


def _read_classes(storage: Storage, uri: str) -> tuple[tuple[ClassLabel, ...], TruthValues]:
    try:
        text = storage.read(uri)
        return parse_classes(text), parse_truth_values(text)
    except CheckpointError as error:
        raise SettingError(f"classes={uri!r}: {error}") from error
    except StoreError as error:
        if error.refused:
            raise SettingError(f"classes={uri!r}: {error}") from error
        raise


def _own_classes(found: Labelled) -> tuple[ClassLabel, ...]:
    """Return the classes of a data set that has no classes file."""
    named = found.coco or found.labelmap
    if named is not None:
        return _as_classes(named)
    if found.layout == "voc":
        return VOC_CLASSES
    if found.layout == "cityscapes":
        return CITYSCAPES_CLASSES
    raise SettingError(
        "the classes are not known: put a classes.json beside the data, or name one with classes"
    )


def _as_classes(named: LabelMap | Coco) -> tuple[ClassLabel, ...]:
    labels = tuple(
        ClassLabel(name, named.colours[name] or voc_color(index))
        for index, name in enumerate(classes_of(named.colours))
    )
    try:
        check_labels(labels)
    except CheckpointError as error:
        raise SettingError(f"{named.uri}: {error}") from error
    return labels


def _kind(storage: Storage, found: Labelled, split: str | None) -> str:
    if found.layout == "cityscapes":
        return "ids" if found.raw_ids else "indices"
    return "colors" if _first(storage, found, split, is_coloured) else "indices"


def _first(
    storage: Storage, found: Labelled, split: str | None, question: Callable[[bytes], bool]
) -> bool:
    """Ask something of the first truth of a split."""
    some = next(filter(None, found.splits.values()), None) if split is None else None
    first = (some or found.split(split or UNDIVIDED))[0]
    try:
        return question(read_image(storage, first.mask))
    except TruthError as error:
        raise InputError(f"{first.mask}: {error}") from error
    except StoreError as error:
        if error.lasting:
            hint = "; relative paths of a manifest start at the current directory"
            is_manifest = found.layout == "manifest"
            raise InputError(error.message + hint * is_manifest) from error
        raise
