"""The plan of a training run: everything that decides its numbers, known before it starts."""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from fcn.training.recipes import Augmentation, Recipe, find_recipe, stages
from fcn.weights import CheckpointError
from fcn.weights.classes import ClassLabel
from fcn.weights.record import Checkpoint
from pipeline.errors import SettingError, StoreError
from pipeline.images.ground_truth import Coding
from pipeline.inputs.corrected import open_corrected
from pipeline.inputs.data_set import Asked, DataSet, as_table
from pipeline.inputs.samples import TRAIN, VAL, Sample
from pipeline.inputs.splits import Fold, by_fold, by_pattern, by_share
from pipeline.inputs.unpacked import unpack
from pipeline.settings.shared import Mark
from pipeline.settings.train import RecipeFields, TrainSettings
from pipeline.store.storage import Storage


@dataclass(frozen=True)
class Stage:
    """One network after the other: one for most recipes, up to three for `staged`."""

    record: Checkpoint
    recipe: Recipe


@dataclass(frozen=True)
class TrainingPlan:
    """What a run trains; travels to the workers.

    Attributes:
        settings: As given.
        storage: Of everything.
        folder: URI of the run's folder.
        classes: The classes of the data set.
        coding: The coding of its ground truth.
        train: The training samples, as `as_table` lays them out.
        val: The same of those that judge; may be empty.
        stages: What is trained, in order.
        start: URI of the checkpoint to start from.
        deciding: What decides the numbers, by name.
    """

    settings: TrainSettings
    storage: Storage
    folder: str
    classes: tuple[ClassLabel, ...]
    coding: Coding
    train: pa.Table
    val: pa.Table
    stages: tuple[Stage, ...]
    start: str | None
    deciding: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """Hash of what decides the numbers."""
        text = json.dumps(self.deciding, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def num_steps(self, stage: Stage) -> int | None:
        """Count the steps of a stage; None where only the time limit ends it."""
        if self.settings.max_train_minutes and not self.settings.epochs:
            return None
        num_images: int = self.train.num_rows
        return math.ceil(stage.recipe.epochs * num_images / stage.recipe.batch_size)

    @property
    def stage_limit_s(self) -> float:
        """Seconds of training that each stage may take."""
        if self.settings.max_train_minutes is None:
            return math.inf
        return 60 * self.settings.max_train_minutes / len(self.stages)

    def unpacked(self) -> "TrainingPlan":
        """Unpack what lies in Parquet files; what decides stays where the samples are.

        Folds and seeds divide the same samples, so they share what is unpacked.
        """
        rows = self.train.to_pylist() + self.val.to_pylist()
        samples = [Sample(**row) for row in rows]
        found = unpack(self.storage, samples, f"{self.settings.output}/unpacked")
        num_train = self.train.num_rows
        return replace(self, train=as_table(found[:num_train]), val=as_table(found[num_train:]))


def open_plan(settings: TrainSettings) -> TrainingPlan:
    """Find the data and check everything that can be checked without reading its images.

    Raises:
        SettingError: A setting does not fit another one, or the start weights.
        InputError: The data is missing, or no labelled data set.
    """
    storage = settings.storage()
    # Before the data, whose ground truth may have to be drawn.
    start_record = _start_record(storage, settings.weights)
    data_set = open_corrected(storage, _asked(settings), settings.corrections)
    train, val = _split(data_set, settings)
    if settings.early_stopping_evaluations and not val:
        raise SettingError(
            f"early_stopping_evaluations={settings.early_stopping_evaluations} counts evaluations "
            "on val, and there is none: hold some images out (val_share), or leave it out"
        )
    planned = tuple(_stages(settings, data_set.classes, start_record))
    tables = as_table(train), as_table(val)
    return TrainingPlan(
        settings=settings,
        storage=storage,
        folder=f"{settings.output}/{settings.run_name}",
        classes=data_set.classes,
        coding=data_set.coding,
        train=tables[0],
        val=tables[1],
        stages=planned,
        start=settings.weights,
        deciding=_deciding(settings, data_set, planned, tables, start_record),
    )


def _asked(settings: TrainSettings) -> Asked:
    split, coding = settings.train_split, settings.truth_coding
    return Asked(settings.data, split, settings.classes, coding, f"{settings.output}/ground_truth")


def commit() -> str:
    """Name the commit of the code, or its version where it is no checkout."""
    folder = Path(__file__).parent
    try:
        # Installed inside of another project's checkout, the commit would be that project's.
        subprocess.run(  # noqa: S603 - nothing of it comes from outside
            ["git", "-C", str(folder), "ls-files", "--error-unmatch", Path(__file__).name],  # noqa: S607 - whichever git the user has
            capture_output=True,
            check=True,
        )
        found = subprocess.run(  # noqa: S603 - nothing of it comes from outside
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"],  # noqa: S607 - whichever git the user has
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return f"fcn-pipeline {importlib.metadata.version('fcn-pipeline')}"
    return found.stdout.strip()


def _split(data_set: DataSet, settings: TrainSettings) -> tuple[list[Sample], list[Sample]]:
    train = data_set.found.split(settings.train_split)
    if settings.val_match is not None:
        return by_pattern(train, settings.val_match, "val_match")
    if settings.val_fold is not None:
        fold = Fold.parse(settings.val_fold)
        return by_fold(train, fold, settings.seed, settings.val_group)
    val = data_set.found.splits.get(settings.val_split, [])
    if settings.val_split == settings.train_split:
        raise SettingError(f"val_split={settings.val_split!r} is the training split itself")
    if not val and "val_split" in settings.model_fields_set:
        data_set.found.named(settings.val_split)
    if not settings.val_share:
        return train, val
    if val:
        raise SettingError(
            f"val_share={settings.val_share}, but the data set has a split {settings.val_split!r}; "
            "leave one of them out"
        )
    return by_share(train, settings.val_share, settings.seed, settings.val_group)


def _start_record(storage: Storage, start: str | None) -> Checkpoint | None:
    if start is None:
        return None
    if not start.endswith(".safetensors"):
        raise SettingError(
            f"weights={start!r} must end in .safetensors: a run of `train` has such a checkpoint "
            "at OUTPUT/RUN_NAME/model.safetensors, and `fcn import-weights` makes one of what "
            "others have published"
        )
    try:
        return Checkpoint.from_json(storage.read(start.removesuffix(".safetensors") + ".json"))
    except CheckpointError as error:
        raise SettingError(f"weights={start!r}: {error}") from error
    except StoreError as error:
        if error.refused:
            raise SettingError(f"weights={start!r}: {error}") from error
        raise


def _stages(
    settings: TrainSettings, classes: tuple[ClassLabel, ...], start: Checkpoint | None
) -> list[Stage]:
    recipe = _recipe(settings)
    planned = stages(recipe, settings.network)
    if start is not None and start.network not in (planned[0][0], settings.network):
        raise SettingError(
            f"weights={settings.weights!r} are of {start.network}, the training begins with "
            f"{planned[0][0]}"
        )
    return [Stage(_record(settings, name, classes, start), one) for name, one in planned]


def _recipe(settings: TrainSettings) -> Recipe:
    recipe = find_recipe(settings.recipe, settings.network)
    if settings.batch_size:
        recipe = recipe.with_batch_size(settings.batch_size)
    names = ("epochs", "learning_rate", "encoder_rate", "micro_batch_size")
    given = {name: getattr(settings, name) for name in (*names, *RecipeFields.model_fields)}
    recipe = replace(recipe, augmentation=_varied(recipe, settings), **_known(given))
    if not recipe.encoder_rate and settings.auxiliary_loss is None:
        # The head would teach layers that don't learn.
        recipe = replace(recipe, auxiliary_loss=0.0)
    if settings.find_rate:
        recipe = replace(recipe, schedule="range", ema_decay=0.0, region_loss="none")
    return recipe


def _varied(recipe: Recipe, settings: TrainSettings) -> Augmentation:
    given = {
        "crop": settings.crop,
        "scales": settings.augment_scales,
        "flip": settings.augment_flip,
        "colour": settings.augment_color,
        "hue": settings.augment_hue,
        "blur": settings.augment_blur,
        "rotation": settings.augment_rotation,
    }
    augmentation = recipe.augmentation if settings.augment else Augmentation()
    return replace(augmentation, **_known(given))


def _known(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _record(
    settings: TrainSettings, network: str, classes: tuple[ClassLabel, ...], start: Checkpoint | None
) -> Checkpoint:
    """Describe the network that comes out; a start brings its geometry and preprocessing along."""
    try:
        if start is None:
            return Checkpoint(
                network,
                classes,
                width=settings.effective_width,
                padding=settings.padding,
                upsampling=settings.upsampling,
                image_scale=settings.image_scale,
            )
        given = {
            name: getattr(settings, name)
            for name in ("width", "padding", "upsampling", "image_scale")
            if name in settings.model_fields_set
        }
        return replace(
            start,
            network=network,
            classes=classes,
            untrained_layers=(),
            weights_sha256="",
            provenance={},
            **given,
        )
    except CheckpointError as error:
        raise SettingError(str(error)) from error


def _deciding(
    settings: TrainSettings,
    data_set: DataSet,
    planned: tuple[Stage, ...],
    tables: tuple[pa.Table, pa.Table],
    start: Checkpoint | None,
) -> dict[str, Any]:
    fields = settings.model_dump(mode="json", exclude=settings.marked(Mark.NOT_DECIDING))
    stages_of = [
        {"network": dataclasses.asdict(stage.record), "recipe": dataclasses.asdict(stage.recipe)}
        for stage in planned
    ]
    return {
        **fields,
        "weights": start and start.weights_sha256,
        "stages": stages_of,
        "classes": [[label.name, *label.color] for label in data_set.classes],
        "coding": data_set.coding.described(),
        TRAIN: _hash(tables[0]),
        VAL: _hash(tables[1]),
    }


def _hash(table: pa.Table) -> str:
    """Hash samples; those without a tar as versions did that knew none."""
    digest = hashlib.sha256()
    for column in table.columns:
        for value in column.to_pylist():
            if value is not None:
                digest.update(str(value).encode() + b"\0")
    return digest.hexdigest()
