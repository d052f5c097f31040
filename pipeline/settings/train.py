"""Settings of `train`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from fcn.architectures import ARCHITECTURES, AUXILIARY, BLOCKS, ENCODERS, WIDTH, check_choices
from fcn.training.recipes import Recipe, find_recipe
from pipeline.settings.data import CLASSES_HELP, DATA_HELP, TRUTH_HELP, check_one_way
from pipeline.settings.shared import (
    RUN_ID_PATTERN,
    Group,
    JobFields,
    NoSettings,
    NotDeciding,
    StoreSettings,
    Uri,
)


class _DataFields(NoSettings):
    data: NotDeciding[Uri] = Field(description=DATA_HELP)
    corrections: NotDeciding[Uri | None] = Field(
        None,
        description="labelled images, of any form that data has: their ground truth takes the "
        "place of that of the same images in data, told by URI or by what its path ends in",
    )
    output: NotDeciding[Uri] = Field(
        description="folder or bucket prefix; the run is written to OUTPUT/RUN_NAME, its "
        "checkpoint for labelling to OUTPUT/RUN_NAME/model.safetensors"
    )
    run_name: NotDeciding[str] = Field(
        pattern=RUN_ID_PATTERN,
        description="name of the run; the same command with the same name resumes it",
    )
    classes: NotDeciding[Uri | None] = Field(None, description=CLASSES_HELP)
    truth_coding: Literal["indices", "ids", "colors"] | None = Field(None, description=TRUTH_HELP)
    train_split: str = Field("train", description="which split to train on")
    val_split: str = Field(
        "val", description="which split to judge by; without it the last weights are kept"
    )
    val_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the training images, 0 to 1, taken for val where there is no such "
        "split; chosen by seed",
    )
    val_match: str | None = Field(
        None,
        description="regular expression: the training images in whose URI it is found are val, "
        "such as those of one drive, patient or place; it is looked for in all of the URI, names "
        "of folders included: /0001TP_ rather than 0001TP",
    )
    val_fold: str | None = Field(
        None,
        description="K/N, such as 0/5: the training images are dealt by seed into N parts, of "
        "which part K, from 0, is val",
    )
    val_group: str | None = Field(
        None,
        description="regular expression: training images in whose URI its first group, or all of "
        "it, matches the same text stay together in val_share and val_fold; the first place in the "
        "URI counts, also in names of folders",
    )
    allow_overlap: NotDeciding[bool] = Field(
        default=False, description="go on, with a warning, when an image is in train and in val"
    )


class _NetworkFields(NoSettings):
    group = Group.NETWORK

    network: str = Field("fcn_all_skips", description="architecture; see `fcn models`")
    weights: NotDeciding[Uri | None] = Field(
        None,
        description="checkpoint to start from (.safetensors with its record beside it), of the "
        "same network; where its classes are others, the scores of those of the same name are "
        "kept and the others start anew; default: from scratch",
    )
    width: int = Field(
        64,
        ge=2,
        le=1024,
        multiple_of=2,
        description="channels of the first block, for networks that scale; 64 is the original",
    )
    padding: Literal["paper", "tight"] = Field(
        "paper", description="around the image, for the paper's networks"
    )
    upsampling: Literal["fixed", "learned"] = Field(
        "fixed", description="of the paper's networks: bilinear, or learned from there"
    )
    image_scale: float = Field(
        1.0,
        ge=0.1,
        le=8,
        description="factor of height and width at which the network sees images, in training and "
        "ever after: 0.5 needs a quarter of the time; masks keep the size of their images",
    )
    precision: Literal["fp32", "bf16"] | None = Field(
        None,
        description="arithmetic of the forward pass; default: bf16 where all workers have GPUs of "
        "Ampere or newer, else fp32",
    )


class _ScheduleFields(NoSettings):
    group = Group.TRAINING

    recipe: Literal["paper", "heavy", "staged", "modern"] = Field(
        "modern",
        description="how to train: paper (momentum 0.9, batches of 20), heavy (batch 1, momentum "
        "0.99, summed loss), staged (FCN-32s, then 16s, then 8s, each as heavy with lower rates), "
        "modern (AdamW, balanced classes, varied scale, place, side and colour); the first three "
        "are for weights that exist already",
    )
    epochs: int | None = Field(
        None,
        ge=1,
        description="passes over the training images, rounded up to whole steps; default: the "
        "recipe's, or with max_train_minutes as many as fit",
    )
    max_train_minutes: float | None = Field(
        None,
        gt=0,
        description="minutes of training after which the run ends; the schedule is stretched to "
        "end then. Waiting for images counts; start-up, evaluations and checkpoints do not",
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="images per step over all workers; default: the recipe's. Another one than "
        "the recipe's changes momentum p of SGD to p^(new/old), and its rate so that an image "
        "moves the weights by as much; the rate of AdamW by the root of new/old",
    )
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        description="images that pass through the network together on a worker, for short memory; "
        "the steps stay the same (but for batch norm); default: the recipe's. A lone worker whose "
        "first steps do not fit into its memory halves it until they do",
    )
    learning_rate: float | None = Field(
        None, gt=0, le=100, description="highest learning rate; default: the recipe's"
    )
    find_rate: NotDeciding[bool] = Field(
        default=False,
        description="train nothing, but try learning rates in 100 steps, from a thousandth of "
        "learning_rate to a hundred times it, and say at which the loss falls fastest; the run's "
        "rates.csv has them all",
    )
    encoder_rate: float | None = Field(
        None,
        ge=0,
        le=100,
        description="factor of the learning rate for the encoder (of fcn_pyramid, fcn_lite0 and "
        "fcn_resnet*), which start weights may have brought; 0 leaves it as it is; default: the "
        "recipe's, 1",
    )
    augment: bool = Field(
        default=True, description="vary the images as the recipe does; else they pass whole"
    )
    seed: int = Field(
        0, ge=0, lt=1 << 32, description="of order, views, dropout and initial weights"
    )
    num_seeds: NotDeciding[int] = Field(
        1,
        ge=1,
        le=100,
        description="trainings, one after the other, with seed, seed + 1, and so on: each a run of "
        "its own, RUN_NAME-SEED, and in the end the mean and the spread of their figures",
    )
    evaluation_interval_epochs: NotDeciding[int] = Field(
        1, ge=1, description="epochs between two evaluations on val; the end is always evaluated"
    )
    early_stopping_evaluations: NotDeciding[int | None] = Field(
        None,
        ge=1,
        description="evaluations on val in a row without a better mean IU after which the "
        "training, or its stage, ends; default: it goes on to its end. Under schedule poly the "
        "last part, of low rates, often brings the best network: be generous",
    )
    checkpoint_interval_s: NotDeciding[float] = Field(
        300.0,
        gt=0,
        description="seconds of training between two checkpoints: what a killed worker costs at "
        "most; the best weights so far are written with it",
    )


class VaryFields(NoSettings):
    """How images are varied; what is not given is the recipe's."""

    group = Group.RECIPE

    crop: tuple[int, int] | None = Field(
        None,
        description="[height,width] in pixels of what is cut out of a varied and scaled image; "
        "default: the recipe's",
    )
    augment_scales: tuple[float, float] | None = Field(
        None,
        description="[least,most] factor by which the size of an image is varied; default: the "
        "recipe's",
    )
    augment_flip: bool | None = Field(
        None, description="mirror half of the images left to right; default: the recipe's"
    )
    augment_color: float | None = Field(
        None,
        ge=0,
        le=1,
        description="largest change of brightness, contrast and saturation, as a share of 1; "
        "default: the recipe's",
    )
    augment_hue: float | None = Field(
        None,
        ge=0,
        le=0.5,
        description="largest shift of all hues, as a share of their circle; default: the recipe's, "
        "0",
    )
    augment_blur: float | None = Field(
        None,
        ge=0,
        le=100,
        description="largest standard deviation of a Gaussian blur, in pixels of what the network "
        "sees; default: the recipe's, 0",
    )
    augment_rotation: float | None = Field(
        None,
        ge=0,
        le=180,
        description="largest angle in degrees by which a view is turned, to either side; corners "
        "from beyond it have no class; default: the recipe's, 0",
    )


class RecipeFields(NoSettings):
    """Numbers of a recipe, under their names there; what is not given is the recipe's."""

    group = Group.RECIPE

    momentum: float | None = Field(
        None, ge=0, lt=1, description="of SGD, at this batch size; default: the recipe's"
    )
    weight_decay: float | None = Field(
        None, ge=0, le=1, description="of kernels, not of biases and norms; default: the recipe's"
    )
    schedule: Literal["fixed", "poly"] | None = Field(
        None,
        description="of the learning rate: fixed, or poly: (1 - progress)^0.9; default: the "
        "recipe's",
    )
    warmup_steps: int | None = Field(
        None,
        ge=0,
        description="steps over which the learning rate grows to its value; default: the recipe's",
    )
    balance: Literal["none", "sqrt"] | None = Field(
        None,
        description="of classes in the loss: none, or sqrt: as one over the root of their share of "
        "the pixels; default: the recipe's",
    )
    max_class_weight: float | None = Field(
        None, ge=1, description="largest weight of a class by balance; default: the recipe's"
    )
    ema_decay: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="decay per step of the running mean of the weights that is evaluated and kept; "
        "0 keeps the weights themselves; default: the recipe's",
    )
    auxiliary_loss: float | None = Field(
        None,
        ge=0,
        le=10,
        description="weight of the loss of an auxiliary head in the middle of the encoder, which "
        "only training has (fcn_pyramid, fcn_lite0, fcn_resnet*); 0 has none; default: the "
        "recipe's, 0.5 for fcn_resnet* with modern",
    )
    label_smoothing: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of a pixel's certainty that goes to all classes alike; default: the "
        "recipe's, 0",
    )
    region_loss: Literal["none", "dice", "lovasz"] | None = Field(
        None,
        description="a loss of an image's classes as regions, whose mean over the images of a step "
        "is added in the last part of the training: dice, or lovasz, which is a smooth form of "
        "1 - mean IU and takes a sort of all pixels; default: the recipe's, none",
    )
    region_loss_from: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of the training after which region_loss is added; default: the "
        "recipe's, 2/3",
    )
    max_gradient_norm: float | None = Field(
        None,
        ge=0,
        description="norm of a step's gradients to which larger ones are scaled down; 0 leaves "
        "them; default: the recipe's, 0",
    )


class _LimitFields(NoSettings):
    group = Group.LIMITS

    max_image_pixels: NotDeciding[int] = Field(
        50_000_000, ge=1, description="largest image in pixels (height * width)"
    )
    max_image_s: NotDeciding[float] = Field(
        60.0,
        gt=0,
        le=86_400,
        description="seconds that one image may take in its decoder when the data is inspected",
    )
    max_failures: NotDeciding[int] = Field(
        3, ge=0, description="deaths of workers after which the run gives up"
    )


class _TrackerFields(NoSettings):
    group = Group.LOG

    tracker: NotDeciding[Literal["mlflow", "wandb"] | None] = Field(
        None,
        description="where evaluations are shown beside TensorBoard's files: mlflow, at "
        "MLFLOW_TRACKING_URI, in the experiment MLFLOW_EXPERIMENT_NAME (fcn-pipeline), or wandb, "
        "by WANDB_API_KEY or WANDB_MODE=offline, in the project WANDB_PROJECT (fcn-pipeline); "
        "needs fcn-pipeline[mlflow] or fcn-pipeline[wandb]",
    )


class _SpeedFields(NoSettings):
    group = Group.SPEED

    threads_per_worker: NotDeciding[int | None] = Field(
        None,
        ge=1,
        description="threads of a worker's network on a CPU; default: a node's cores over its "
        "workers",
    )
    gradient_checkpointing: NotDeciding[bool] = Field(
        default=False,
        description="for short memory: blocks of the network keep no activations and compute them "
        "again for their gradients; a step takes longer and the numbers stay the "
        "same (fcn_pyramid, fcn_lite0, fcn_all_skips*, fcn_resnet*)",
    )
    io_threads: NotDeciding[int] = Field(
        8, ge=1, le=256, description="images that one loading task reads and decodes at a time"
    )


class _WorkerFields(NoSettings):
    group = Group.CLUSTER

    num_workers: NotDeciding[int] = Field(
        1, ge=1, le=4096, description="workers, each with its own network"
    )
    max_workers: NotDeciding[int | None] = Field(
        None,
        ge=1,
        le=4096,
        description="elastic: as many workers as the cluster has room for, from num_workers to "
        "this; default: num_workers",
    )
    gpus_per_worker: NotDeciding[float | None] = Field(
        None, ge=0, description="GPUs per worker; default: 1 if there are any"
    )
    cpus_per_worker: NotDeciding[float | None] = Field(
        None,
        gt=0,
        description="CPU cores that Ray sets aside per worker; default: 1 with a GPU, else what "
        "fills a node and leaves one core for loading",
    )


class TrainSettings(
    StoreSettings,
    JobFields,
    _TrackerFields,
    _WorkerFields,
    _SpeedFields,
    _LimitFields,
    VaryFields,
    RecipeFields,
    _ScheduleFields,
    _NetworkFields,
    _DataFields,
):
    """What to train, on what, and how."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        width = self.width if "width" in self.model_fields_set else None
        if width is not None and WIDTH not in ARCHITECTURES.get(self.network, (WIDTH,)):
            raise ValueError(f"width={width} does not apply to {self.network}; leave it out")
        check_choices(self.network, self.effective_width, self.padding, self.upsampling)
        check_one_way(self)
        if self.gradient_checkpointing and self.network not in BLOCKS:
            raise ValueError(
                "gradient_checkpointing is for networks that are built of blocks: "
                f"{', '.join(BLOCKS)}; leave it out"
            )
        if self.find_rate and self.num_seeds > 1:
            raise ValueError("find_rate trains nothing, so that num_seeds compares nothing")
        if self.val_group is not None and not (self.val_fold or self.val_share):
            raise ValueError("val_group goes with val_fold or val_share; give one of them")
        recipe = find_recipe(self.recipe, self.network)
        self._check_recipe(recipe)
        most = self.max_workers or self.num_workers
        if most < self.num_workers:
            raise ValueError(f"max_workers={most} is less than num_workers={self.num_workers}")
        self._check_shares(recipe, most)
        if self.augment_scales and not 0 < self.augment_scales[0] <= self.augment_scales[1] <= 16:
            raise ValueError(f"augment_scales={self.augment_scales}: 0 < least <= most <= 16")
        if self.crop and min(self.crop) < 1:
            raise ValueError(f"crop={self.crop}: height and width are from 1 up")
        return self

    def _check_recipe(self, recipe: Recipe) -> None:
        if self.encoder_rate is not None and self.network not in ENCODERS:
            raise ValueError(
                f"encoder_rate={self.encoder_rate} is for networks with an encoder: "
                f"{', '.join(ENCODERS)}"
            )
        if self.auxiliary_loss and self.network not in AUXILIARY:
            raise ValueError(
                f"auxiliary_loss={self.auxiliary_loss} is for networks with a place for such a "
                f"head: {', '.join(AUXILIARY)}"
            )
        if self.auxiliary_loss and self.encoder_rate == 0:
            raise ValueError(
                f"auxiliary_loss={self.auxiliary_loss} is for an encoder that learns, and "
                "encoder_rate=0 leaves it as it is; leave one of them out"
            )
        if self.region_loss_from is not None and (self.region_loss or "none") == "none":
            raise ValueError("region_loss_from goes with region_loss=dice or lovasz; give one")
        if (self.region_loss or "none") != "none" and recipe.divisor == "one":
            raise ValueError(
                f"region_loss={self.region_loss} is for a loss that is a mean, and that of "
                f"recipe={self.recipe} is a sum; leave it out"
            )
        if self.momentum is not None and recipe.optimizer != "sgd":
            raise ValueError(
                f"momentum={self.momentum} is SGD's; recipe={self.recipe} trains with "
                f"{recipe.optimizer}; leave it out"
            )

    def _check_shares(self, recipe: Recipe, most: int) -> None:
        if self.gpus_per_worker and self.gpus_per_worker > 1:
            raise ValueError(
                f"gpus_per_worker={self.gpus_per_worker:g}: a worker uses one GPU at most; give 1, "
                "and each GPU a worker of its own (num_workers)"
            )
        batch_size = self.batch_size or recipe.batch_size
        if batch_size < most:
            raise ValueError(
                f"batch_size={batch_size} leaves some of {most} workers without an image; raise it "
                "or lower num_workers and max_workers"
            )
        # Whole images differ in size and pass one by one, and batch norms wait for each other.
        uneven = [one for one in range(self.num_workers, most + 1) if batch_size % one]
        if uneven and not (self.crop or (self.augment and recipe.augmentation.crop)):
            raise ValueError(
                f"batch_size={batch_size} can't be shared out evenly to {uneven[0]} workers, as "
                "images that are trained on whole have to be; give crop, or a batch_size that "
                "every number of workers from num_workers to max_workers divides"
            )

    @property
    def effective_width(self) -> int:
        """The width, or the default where a network has none."""
        return self.width if WIDTH in ARCHITECTURES.get(self.network, ()) else 64
