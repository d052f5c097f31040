"""Recipes: how a network is trained, as named settings; without torch.

`paper` is Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation"
(CVPR 2015), section 4.3; `heavy` and `staged` are the solvers that its authors published
(fcn.berkeleyvision.org, voc-fcn*/solver.prototxt). `modern` is what such networks get today.
"""

import dataclasses
import math
from dataclasses import dataclass

# Whole images of a data set differ in size, so that they pass one at a time.
_ONE = 1
_POLY_POWER = 0.9
_RANGE = (1e-3, 1e2)


@dataclass(frozen=True)
class Augmentation:
    """What is varied from one showing of an image to the next.

    Attributes:
        crop: (height, width) in pixels of what is cut out at a random place; None takes images
            whole. Where an image is smaller, the rest is mean grey without a class.
        scales: Factors of height and width between which one is drawn, evenly in its logarithm.
        flip: Whether half of the showings are mirrored left to right.
        colour: Largest change of brightness, contrast and saturation, as a share of 1.
        hue: Largest shift of all hues, as a share of their circle.
        blur: Largest standard deviation of a Gaussian blur, in pixels of what the network sees.
        rotation: Largest angle in degrees by which a view is turned, to either side.
    """

    crop: tuple[int, int] | None = None
    scales: tuple[float, float] = (1.0, 1.0)
    flip: bool = False
    colour: float = 0.0
    hue: float = 0.0
    blur: float = 0.0
    rotation: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        name: The name of the recipe.
        optimizer: `sgd` or `adamw`.
        learning_rate: The highest; the schedule lowers it.
        batch_size: Images per step over all workers.
        epochs: Passes over the training images.
        momentum: Of `sgd`.
        weight_decay: Of kernels. Biases and batch norms have none.
        bias_rate: Factor of the learning rate for biases.
        encoder_rate: Factor of the learning rate for the encoder of a network that has one
            (`fcn.architectures.ENCODERS`); 0 leaves it as it is, batch norms included.
        divisor: What the loss, summed over the pixels of a step, is divided by: `one` (nothing),
            or `pixels`, the pixels with a class, each counting as much as its class's weight.
        balance: `none`, or `sqrt`: a class weighs as one over the root of its share of the
            pixels, at most `max_class_weight`, with a mean of 1 over the pixels.
        max_class_weight: See `balance`.
        schedule: `fixed`, or `poly`: (1 - progress)^0.9, as Chen et al., "DeepLab" (2016),
            section 4.1; or `range`, which only tries rates: from a thousandth of the rate to a
            hundred times it, evenly in the logarithm.
        warmup_steps: Steps over which the learning rate grows to its value.
        auxiliary_loss: Weight of the loss of an auxiliary head, for the networks that have a place
            for one (`fcn.architectures.AUXILIARY`); 0 has none.
        label_smoothing: Share of the certainty that a pixel's class gives to all classes alike
            (Szegedy et al., "Rethinking the Inception Architecture", 2016, section 7).
        region_loss: A loss that is added in the last part of the training: `none`, or one of
            `fcn.training.region_losses`.
        region_loss_from: Share of the training, 0 to 1, after which it is added.
        max_gradient_norm: Of all gradients of a step together; larger ones are scaled down to it.
            0 leaves them.
        ema_decay: Decay of the running mean of the weights that is evaluated and kept; 0 keeps the
            weights themselves.
        micro_batch_size: Images that pass through the network at a time on a worker; gradients
            are summed up over the step. None: all at once.
        augmentation: The augmentation of the training images.
        stage_factors: For `staged`: of the learning rate, for each of the stages, coarse to fine.
    """

    name: str
    optimizer: str
    learning_rate: float
    batch_size: int
    epochs: int
    momentum: float = 0.0
    weight_decay: float = 0.0
    bias_rate: float = 1.0
    encoder_rate: float = 1.0
    divisor: str = "pixels"
    balance: str = "none"
    max_class_weight: float = 10.0
    schedule: str = "fixed"
    warmup_steps: int = 0
    auxiliary_loss: float = 0.0
    label_smoothing: float = 0.0
    region_loss: str = "none"
    region_loss_from: float = 2 / 3
    max_gradient_norm: float = 0.0
    ema_decay: float = 0.0
    micro_batch_size: int | None = None
    augmentation: Augmentation = Augmentation()
    stage_factors: tuple[float, ...] = ()

    def rate(self, step: int, progress: float) -> float:
        """Return the learning rate of a step.

        Args:
            step: Steps done before.
            progress: Share of the training that is done, 0 to 1.
        """
        if self.schedule == "range":
            lowest, highest = _RANGE
            return self.learning_rate * lowest * math.pow(highest / lowest, progress)
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        decay = math.pow(1 - progress, _POLY_POWER) if self.schedule == "poly" else 1.0
        return self.learning_rate * warmup * decay

    def with_batch_size(self, batch_size: int) -> "Recipe":
        """Change the batch, and rate and momentum with it, so that images count as before.

        Under `sgd` an image moves the weights by rate / (1 - momentum) in all, and where the loss
        is a mean by a batch's share of that. AdamW's steps do not grow with the gradient; its rate
        goes with the root of the batch (Malladi et al., "On the SDEs and Scaling Rules for
        Adaptive Gradient Algorithms", 2022, section 5).

        Args:
            batch_size: Images per step.
        """
        factor = batch_size / self.batch_size
        if self.optimizer != "sgd":
            rate = self.learning_rate * math.sqrt(factor)
            return dataclasses.replace(self, batch_size=batch_size, learning_rate=rate)
        momentum = accumulated_momentum(self.momentum, factor)
        rate = self.learning_rate * (1 - momentum) / (1 - self.momentum)
        if self.divisor == "pixels":
            rate *= factor
        return dataclasses.replace(
            self, batch_size=batch_size, momentum=momentum, learning_rate=rate
        )


def accumulated_momentum(momentum: float, factor: float) -> float:
    """Convert a momentum to steps of another size, so that an image's gradient fades as fast.

    A gradient has the share p^n of its weight after n steps. With steps of k times fewer images
    there are k times as many of them, so that p' = p^(1/k): 0.9 at 20 images is 0.9948 at one,
    which is why the published solvers of batch 1 have 0.99.

    Args:
        momentum: p, at the old size.
        factor: 1/k: images per step, new over old.
    """
    return math.pow(momentum, factor)


# The paper's line search, by base network (section 4.3; printed "5^-5" for the last).
_PAPER_RATES = {"alexnet": 1e-3, "vgg16": 1e-4, "googlenet": 5e-5}
_PAPER_RATE_OF_OTHERS = 1e-3

_HEAVY = Recipe(
    name="heavy",
    optimizer="sgd",
    learning_rate=1e-10,
    batch_size=1,
    # 100,000 steps over the 8,498 images of SBD.
    epochs=12,
    momentum=0.99,
    weight_decay=5e-4,
    bias_rate=2.0,
    divisor="one",
    micro_batch_size=_ONE,
)

RECIPES = {
    "paper": Recipe(
        name="paper",
        optimizer="sgd",
        learning_rate=_PAPER_RATES["vgg16"],
        batch_size=20,
        epochs=175,
        momentum=0.9,
        weight_decay=5e-4,
        bias_rate=2.0,
        micro_batch_size=_ONE,
    ),
    "heavy": _HEAVY,
    "staged": dataclasses.replace(_HEAVY, name="staged", stage_factors=(1.0, 1e-2, 1e-4)),
    "modern": Recipe(
        name="modern",
        optimizer="adamw",
        learning_rate=3e-3,
        batch_size=8,
        epochs=100,
        weight_decay=1e-2,
        balance="sqrt",
        schedule="poly",
        warmup_steps=100,
        ema_decay=0.998,
        augmentation=Augmentation((240, 320), (0.75, 1.5), flip=True, colour=0.2),
    ),
}

# As torchvision trains them (references/segmentation/train.py).
_TRAINED_WITH_AUXILIARY = ("fcn_resnet50", "fcn_resnet101")
_TORCHVISIONS = 0.5

# With an encoder that knows ImageNet, colours that vary further cost half a point on the drives
# that are trained on and bring 4.6 on one at dusk (docs/accuracy.md).
_FROM_IMAGENET = ("fcn_lite0",)
_FURTHER_COLOUR = 0.5

# What `staged` trains one after the other to get to a network.
_STAGES = ("fcn32s_vgg16", "fcn16s_vgg16", "fcn8s_vgg16")


def find_recipe(name: str, network: str) -> Recipe:
    """Look a recipe up and fit it to a network.

    Raises:
        ValueError: There is no such recipe, or it is not for this network.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe={name!r} is unknown; there are: {', '.join(RECIPES)}")
    if name == "staged" and network not in _STAGES:
        raise ValueError(f"recipe=staged is for {', '.join(_STAGES)}, not for {network}")
    if name == "paper":
        rates = [rate for base, rate in _PAPER_RATES.items() if base in network]
        rate = rates[0] if rates else _PAPER_RATE_OF_OTHERS
        return dataclasses.replace(RECIPES[name], learning_rate=rate)
    if name == "modern" and network in _TRAINED_WITH_AUXILIARY:
        return dataclasses.replace(RECIPES[name], auxiliary_loss=_TORCHVISIONS)
    if name == "modern" and network in _FROM_IMAGENET:
        varied = dataclasses.replace(RECIPES[name].augmentation, colour=_FURTHER_COLOUR)
        return dataclasses.replace(RECIPES[name], augmentation=varied)
    return RECIPES[name]


def stages(recipe: Recipe, network: str) -> list[tuple[str, Recipe]]:
    """List what is trained one after the other: network and recipe, the wanted network last.

    Args:
        recipe: From `find_recipe`, perhaps changed since.
        network: The wanted one.
    """
    if not recipe.stage_factors:
        return [(network, recipe)]
    names = _STAGES[: _STAGES.index(network) + 1]
    return [
        (name, dataclasses.replace(recipe, learning_rate=factor * recipe.learning_rate))
        for name, factor in zip(names, recipe.stage_factors, strict=False)
    ]


def class_weights(recipe: Recipe, pixels: list[int]) -> tuple[float, ...] | None:
    """Weigh classes against each other by their pixels in the training set.

    Args:
        recipe: Whose `balance` applies.
        pixels: Per class, counted; a class without any weighs `max_class_weight`, and is never
            seen.

    Returns:
        One weight per class, with a mean of 1 over the counted pixels before the limit applies;
        None if all weigh the same.
    """
    total = sum(pixels)
    if recipe.balance == "none" or not total:
        return None
    raw = [(total / count) ** 0.5 if count else float("inf") for count in pixels]
    mean = sum(weight * count for weight, count in zip(raw, pixels, strict=True) if count) / total
    return tuple(min(recipe.max_class_weight, weight / mean) for weight in raw)
