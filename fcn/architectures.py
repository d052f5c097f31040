"""The names of the networks and what can be chosen for each, without torch."""

WIDTH = "width"
PADDING = "padding"
UPSAMPLING = "upsampling"

# The original width of a network's first block; the others follow in proportion.
FULL_WIDTH = 64
PADDINGS = ("paper", "tight")
UPSAMPLINGS = ("fixed", "learned")

_VGG16 = frozenset({WIDTH, PADDING, UPSAMPLING})
_ALEXNET = frozenset({PADDING, UPSAMPLING})

ARCHITECTURES = {
    "fcn32s_vgg16": _VGG16,
    "fcn16s_vgg16": _VGG16,
    "fcn8s_vgg16": _VGG16,
    "fcn8s_vgg16_at_once": _VGG16,
    "fcn32s_alexnet": _ALEXNET,
    "fcn32s_alexnet_owt": _ALEXNET,
    "fcn32s_googlenet": frozenset({UPSAMPLING}),
    "fcn_all_skips": frozenset({WIDTH}),
    "fcn_all_skips_vgg16": frozenset({WIDTH}),
    "fcn_pyramid": frozenset({WIDTH}),
    "fcn_lite0": frozenset[str](),
    "fcn_resnet50": frozenset[str](),
    "fcn_resnet101": frozenset[str](),
}

# Where the layers begin that others may have trained, by the beginning of their tensors' names.
ENCODERS = {
    "fcn_pyramid": "encoder.",
    "fcn_lite0": "encoder.",
    "fcn_resnet50": "backbone.",
    "fcn_resnet101": "backbone.",
}

# Whose features an auxiliary head can look at while the network is trained.
AUXILIARY = {
    "fcn_pyramid": "encoder.levels.3",
    "fcn_lite0": "encoder.levels.3",
    "fcn_resnet50": "backbone.layer3",
    "fcn_resnet101": "backbone.layer3",
}

_OF_PYRAMIDS = r"encoder\.levels\.\d+\.\d+|mixes\.\d+"
# The blocks whose activations gradient checkpointing computes twice, by their names.
BLOCKS = {
    "fcn_all_skips": r"block\d",
    "fcn_all_skips_vgg16": r"block\d",
    "fcn_pyramid": _OF_PYRAMIDS,
    "fcn_lite0": _OF_PYRAMIDS,
    "fcn_resnet50": r"backbone\.layer\d\.\d+",
    "fcn_resnet101": r"backbone\.layer\d\.\d+",
}


def check_choices(network: str, width: int, padding: str, upsampling: str) -> None:
    """Refuse what a network does not have.

    Raises:
        ValueError: The network is unknown, a choice is none of those that there are, or the
            network knows only its default; the message names the field and the remedy.
    """
    if network not in ARCHITECTURES:
        raise ValueError(f"network={network!r} is unknown; there are: {', '.join(ARCHITECTURES)}")
    if width < 2 or width % 2:
        raise ValueError(f"width={width}; it is an even number from 2 up")
    chosen = {
        WIDTH: (width, FULL_WIDTH, None),
        PADDING: (padding, PADDINGS[0], PADDINGS),
        UPSAMPLING: (upsampling, UPSAMPLINGS[0], UPSAMPLINGS),
    }
    for field, (value, default, allowed) in chosen.items():
        if allowed is not None and value not in allowed:
            raise ValueError(f"{field}={value!r}; it is one of {', '.join(allowed)}")
        if value != default and field not in ARCHITECTURES[network]:
            raise ValueError(f"{field}={value!r} does not apply to {network}; leave it out")
