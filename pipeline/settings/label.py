"""Settings of `label`, `plan` and whatever else labels."""

import re
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from pipeline.errors import SettingError
from pipeline.settings.shared import (
    RUN_ID_PATTERN,
    Group,
    InputAccessFields,
    JobFields,
    Mark,
    NoSettings,
    StoreSettings,
    Uri,
    normalised,
    normalised_input,
)
from pipeline.store.storage import Storage
from pipeline.store.uri import WEB

_MIN_SCALE, _MAX_SCALE = 0.1, 8.0
# Four of each of 24 classes, beside the least confident and the random ones.
REPORT_IMAGES = 120
# Networks of torchvision's that label as they are, and what it calls their weights. torchvision
# itself is not asked: planning runs without it.
TORCHVISION_FAMILIES = {
    "fcn_resnet50": "FCN_ResNet50_Weights",
    "fcn_resnet101": "FCN_ResNet101_Weights",
}
# Of a page's bytes each still has enough to be as sharp as an ordinary screen shows it.
MAX_REPORT_IMAGES = 300


def _checkpoint_or_random(value: str, info: ValidationInfo) -> str:
    if value.startswith(("torchvision:", *WEB)) or value.endswith((".pth", ".pt")):
        raise SettingError(_how_to_import(value))
    if value == "random":
        raise SettingError("weights='random' lacks its seed; write random:SEED, as in random:0")
    return value if value.startswith("random:") else normalised(value, info)


def _how_to_import(source: str) -> str:
    """Name the command that makes a checkpoint of torchvision's weights."""
    name = source.partition(":")[2].lower().partition("_weights")[0]
    network = name if name.startswith("fcn_") else "NETWORK"
    family = TORCHVISION_FAMILIES.get(name)
    whole = family is None or source.startswith(f"torchvision:{family}.")
    importable = source if whole else f"torchvision:{family}.DEFAULT"
    return (
        f"weights={source!r} are weights, but no checkpoint of this project's yet; make one: "
        f"fcn import-weights --source {importable} --network {network} --output net.safetensors, "
        "then give --weights net.safetensors"
    )


def _retry_policy(value: object) -> object:
    """Read what the setting was before it was a policy: a switch."""
    said = str(value).lower()
    if said in ("true", "1", "yes", "on"):
        return "transient"
    return "none" if said in ("false", "0", "no", "off") else value


class _RunFields(NoSettings):
    output: Uri = Field(description="folder or bucket prefix for masks and tables")
    run_id: str | None = Field(
        None,
        pattern=RUN_ID_PATTERN,
        description="name of the run, from your scheduler (letters, digits, . _ -); default: "
        "continue the last unfinished run of the same input and network, else start a new one",
    )


class _CheckpointFields(NoSettings):
    group = Group.NETWORK

    weights: Annotated[str, AfterValidator(_checkpoint_or_random)] = Field(
        description="checkpoint: URI of a .safetensors file with its .json record beside it; "
        "random:SEED runs an untrained network, for trying things out"
    )
    weights_sha256: str | None = Field(
        None,
        pattern="^[0-9a-f]{64}$",
        description="refuse other weights than these (SHA-256 of the .safetensors file)",
    )
    padding: Literal["paper", "tight"] | None = Field(
        None,
        description="of the paper's networks: paper gives the published results, tight 40 to 60 "
        "percent fewer multiplications with the same weights; default: what the checkpoint says",
    )
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = Field(
        "auto",
        description="arithmetic of the network; part of the fingerprint. auto: that of the "
        "network's newest run in the output, of the same input if there is one; for the first run "
        "bf16 on GPUs with matrix units for it (Ampere and newer), else fp32. fp16: for older "
        "GPUs; tf32: fp32 whose products are rounded to 10 bits, on Ampere and newer. On CPUs "
        "bf16 is faster with AMX only",
    )
    flip: bool = Field(
        default=False,
        description="score the mirrored image too and take the mean: a better mask at twice the "
        "time; part of the fingerprint",
    )
    scales: tuple[float, ...] = Field(
        (1.0,),
        min_length=1,
        description="factors of height and width, 0.1 to 8, at which an image is scored, on top of "
        "the one that the network was trained at; the mean is taken: [0.75,1,1.25]; part of the "
        "fingerprint",
    )
    compiled: bool = Field(
        default=False,
        description="run the network through torch.compile: minutes for each image size, which "
        "then is faster; for inputs of few sizes, on nodes with a compiler; part of the "
        "fingerprint",
    )

    @field_validator("scales")
    @classmethod
    def _usable_scales(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        for scale in scales:
            if not _MIN_SCALE <= scale <= _MAX_SCALE:
                raise ValueError(f"{scale} is not between {_MIN_SCALE} and {_MAX_SCALE}")
        return scales

    @model_validator(mode="after")
    def _is_seed_or_file(self) -> Self:
        if not self.random_weights:
            return self
        if self.weights != self.weights.strip():
            raise ValueError(f"weights={self.weights!r} begins or ends with a space; leave it out")
        if not re.fullmatch(r"random:[0-9]{1,18}", self.weights):
            raise ValueError(f"weights={self.weights!r}: random: needs a number, as in random:0")
        if self.weights_sha256 is not None:
            raise ValueError("weights_sha256 is for a checkpoint; random weights have no file")
        return self

    @property
    def random_weights(self) -> bool:
        """Return whether an untrained network is asked for."""
        return self.weights.startswith("random:")


class _LimitFields(NoSettings):
    group = Group.LIMITS

    max_error_rate: float = Field(
        0.01,
        ge=0,
        le=1,
        description="share of bad images, 0 to 1, above which the exit code is 4: of the run's "
        "images or of the whole input's, whichever is worse",
    )
    max_image_bytes: int = Field(
        64 << 20, ge=1, le=1 << 30, description="largest encoded image in bytes"
    )
    max_image_pixels: int = Field(
        50_000_000,
        ge=1,
        description="largest image in pixels (height * width), checked before decoding; large "
        "ones are labelled in tiles",
    )
    max_image_s: float = Field(
        60.0,
        gt=0,
        le=86_400,
        description="seconds that one image may take in its decoder, and per megapixel and view "
        "in the network; a replica that hangs longer is ended, and the image is a row, too_slow",
    )
    max_shard_images: int = Field(
        256, ge=1, le=100_000, description="images per shard: what one commit covers"
    )
    max_shard_bytes: int = Field(
        64 << 20, ge=1, le=1 << 30, description="encoded bytes per shard, whichever comes first"
    )


class _SpeedFields(NoSettings):
    group = Group.SPEED

    batch_size: int = Field(
        8, ge=1, le=1024, description="images of one size that go through the network together"
    )
    max_whole_pixels: int = Field(
        16 << 20,
        ge=64 * 64,
        description="images of more pixels (height * width) go through the network in tiles, with "
        "the same result; smaller ones only if memory is short",
    )
    png_compress_level: int = Field(
        1,
        ge=0,
        le=9,
        description="how hard masks are compressed: 0 stores them, 1 packs runs of one class "
        "(fast), 2 to 9 are zlib's levels, each smaller and slower than the one before",
    )
    threads_per_replica: int | None = Field(
        None,
        ge=1,
        description="threads of a replica's decoding and, without a GPU, of its network; "
        "default: the cores of its node over the replicas there",
    )
    io_threads: int = Field(
        16, ge=1, le=256, description="objects that one fetch or write task moves at a time"
    )


class _ReplicaFields(NoSettings):
    group = Group.CLUSTER

    min_replicas: int = Field(
        1,
        ge=1,
        description="FCN replicas (one per shard at most) that there must be room for before the "
        "work begins; a cluster that can grow is asked for them",
    )
    max_replicas: int | None = Field(
        None,
        ge=1,
        description="FCN replicas at most, which a cluster is asked for, and grows if it can; "
        "default: what there is room for, also on nodes that are added later: one per GPU, "
        "without GPUs one per four cores",
    )
    gpus_per_replica: float | None = Field(
        None,
        ge=0,
        description="GPUs per replica, 0 to 1: a replica of half a GPU uses half of its memory; "
        "default: 1 if there are any",
    )
    cpus_per_replica: int | None = Field(
        None,
        ge=1,
        description="CPU cores that Ray sets aside per replica, for decoding, encoding and, "
        "without a GPU, the network; default: what fills a node and leaves one core",
    )

    @model_validator(mode="after")
    def _can_be_placed(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError(
                f"max_replicas={self.max_replicas} is less than min_replicas={self.min_replicas}"
            )
        if self.gpus_per_replica and self.gpus_per_replica > 1:
            raise ValueError(
                f"gpus_per_replica={self.gpus_per_replica:g}: a replica uses one GPU at most; give "
                "1, and each GPU gets a replica of its own"
            )
        return self


class _ReportFields(NoSettings):
    """What the report of a run shows."""

    report_images: int = Field(
        REPORT_IMAGES,
        ge=0,
        le=MAX_REPORT_IMAGES,
        description="images that the run's report.html may show, small, beside their masks, "
        "in all; each costs two reads; 0 where pictures must not be copied",
    )


# Pydantic takes the fields of bases from right to left, and --help follows.
class LabellingSettings(
    StoreSettings,
    JobFields,
    _ReplicaFields,
    _SpeedFields,
    _LimitFields,
    _CheckpointFields,
    _ReportFields,
    _RunFields,
):
    """How to label, whatever the images are."""


class _InputFields(NoSettings):
    input: Annotated[str, AfterValidator(normalised_input)] = Field(
        description="folder, bucket prefix, glob, one image, a .tar of images, a manifest with a "
        "column `uri` (.parquet, .csv, .jsonl), or manifest.json of an S3 Inventory; local or in a "
        "bucket"
    )
    input_form: Literal["files", "tar", "parquet"] = Field(
        "files",
        description="files: label the images of a folder or manifest; tar: also the images in its "
        ".tar files, as img2dataset and NeMo Curator write them; parquet: also those in its "
        ".parquet files, as Hugging Face's datasets and img2dataset write them. An input that "
        "names .tar files, or *.parquet, opens them in any case",
    )
    image_column: str | None = Field(
        None,
        min_length=1,
        description="with input_form=parquet: the column of the images, which is binary or a "
        "struct with `bytes`; default: the only one",
    )
    trust_manifest: bool = Field(
        default=False,
        description="believe the columns `etag` and `num_bytes` of a manifest, in place of a "
        "request for each image; one that has changed since then is a row, `changed`",
    )


class _MaskFields(NoSettings):
    masks: Literal["files", "tar"] = Field(
        "files",
        description="files: a file for each mask; tar: one tar for all masks of a shard, which "
        "costs a bucket one write in place of one per image, and which WebDataset reads; "
        "`plan` says what both cost. A resumed run keeps the kind it began with",
    )
    mask_colors: Literal["palette", "none"] = Field(
        "palette",
        description="palette: masks are palette PNGs that show the classes' colours; none: grey "
        "PNGs, for readers that turn palettes into colours. A pixel's value is its class index in "
        "both; a resumed run keeps what it began with",
    )
    ignore_below: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="confidence, 0 to 1, below which a pixel of a mask is 255, ignore, and counted "
        "as that; 0 ignores none; part of the fingerprint",
    )
    mask_name: Literal["replace", "full"] = Field(
        "replace",
        description="replace: a/b.jpg becomes a/b.png; full: a/b.jpg becomes a/b.jpg.png",
    )
    retry_failed: Annotated[
        Literal["transient", "all", "none"], Mark.VALUE_OPTIONAL, BeforeValidator(_retry_policy)
    ] = Field(
        "transient",
        description="which failed images a new run retries: transient, those that failed "
        "for a reason outside their bytes (not_found, forbidden, archived, timeout, throttled, "
        "changed, out_of_memory, failed), up to max_image_attempts, and those that "
        "max_image_bytes, max_image_pixels or max_image_s kept out where it is higher now; all, "
        "whatever the reason; or none. "
        "Without a value: transient",
    )
    max_image_attempts: int = Field(
        3,
        ge=1,
        description="runs that try one version of an image before its transient failure stands; "
        "retry_failed=all goes beyond it",
    )


class _RandomFields(NoSettings):
    group = Group.NETWORK

    num_classes: int | None = Field(
        None,
        ge=1,
        le=255,
        description="number of classes, background included; refuses a checkpoint with another; "
        "for random:SEED the default is 21",
    )
    classes: Uri | None = Field(
        None,
        description="only for random:SEED: JSON file with names and colours, "
        '{"classes": [{"id": 0, "name": "sky", "color": [128, 128, 128]}]}',
    )
    network: str = Field("fcn_all_skips", description="only for random:SEED: the architecture")
    width: int | None = Field(
        None,
        ge=2,
        le=1024,
        multiple_of=2,
        description="only for random:SEED: channels of the first block; default: 16 where the "
        "network scales",
    )


class _PriceFields(NoSettings):
    group = Group.CLUSTER

    price_per_node_hour: float | None = Field(
        None,
        ge=0,
        description="what one node costs for an hour, in your currency: the report then has the "
        "price per thousand images; a resumed run keeps its price",
    )


class _DeltaFields(NoSettings):
    delta_log: bool = Field(
        default=False,
        description="make images and class_statistics Delta tables as well, from this run on: a "
        "log beside them names the files of all finished runs. Where there is one, every run is "
        "added to it",
    )


class LabelSettings(
    InputAccessFields,
    _PriceFields,
    _DeltaFields,
    _RandomFields,
    _MaskFields,
    LabellingSettings,
    _InputFields,
):
    """Which images to label, with which network, and how."""

    def storage(self) -> Storage:
        """Open the storage, which enters the input as these settings say."""
        return self.for_input(super().storage())

    @model_validator(mode="after")
    def _leaves_the_network_to_its_record(self) -> Self:
        for name in ("classes", "network", "width"):
            if not self.random_weights and name in self.model_fields_set:
                raise ValueError(
                    f"{name} is for weights=random:SEED only; a checkpoint's record says it"
                )
        return self
