"""Weights that others have published: the forms that they have, and where torchvision's are.

The tensors of a source are recognised by their names (`KINDS`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torchvision import models
from torchvision.models import segmentation

from fcn.models.lite import LITE0_LEVELS
from fcn.models.vgg16 import VGG16_BLOCKS
from fcn.weights import CheckpointError

Tensors = dict[str, torch.Tensor]
_MAX_SHOWN = 5


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects of its images; fields as in `fcn.weights.record.Checkpoint`."""

    channel_order: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


_IMAGENET = Preprocessing("RGB", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# torchvision's published GoogLeNet rescales its input from ImageNet's numbers to these
# (transform_input=True), which a state dict does not tell.
_HALVES = Preprocessing("RGB", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
# Caffe's: 0 to 255 minus the mean of ImageNet in BGR, undivided.
_CAFFE = Preprocessing(
    "BGR", (104.00699 / 255, 116.66877 / 255, 122.67892 / 255), (1 / 255, 1 / 255, 1 / 255)
)
# EfficientNet-Lite's (tensorflow/tpu, efficientnet/lite): 0 to 255 minus 127, divided by 128.
_LITE = Preprocessing("RGB", (127 / 255,) * 3, (128 / 255,) * 3)
# pochih's: the same idea with rounded means, after a division by 255.
_ROUNDED = Preprocessing("BGR", (103.939 / 255, 116.779 / 255, 123.68 / 255), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Kind:
    """A form in which weights are published.

    Attributes:
        name: For a person.
        networks: What it becomes.
        needs: Tensors by which it is recognised, all of them.
        source_of: Gives the source's name of one of our layers; None if the source lacks it.
        first: Its first convolution, which tells the width and the channels of the input.
        preprocessing: What it expects of its images.
        one_of: Further tensors by which it is recognised; one is enough.
        scores: Its layer with one output per class; None for classifiers of other classes.
        dropped: Beginnings of the names of tensors that no segmentation uses.
        voc: Whether 21 classes are PASCAL VOC's.
        hint: What to know where a network is asked for that it does not become.
        caution: What no file tells, and whoever imports it should check.
    """

    name: str
    networks: tuple[str, ...]
    needs: frozenset[str]
    source_of: Callable[[str], str | None]
    first: str
    preprocessing: Preprocessing
    one_of: frozenset[str] = frozenset()
    scores: str | None = None
    dropped: tuple[str, ...] = ()
    voc: bool = False
    hint: str = ""
    caution: str = ""


def _vgg16_layers() -> list[tuple[str, str, int]]:
    """Name VGG16's convolutions as the paper, as our blocks, and by their place in `features`."""
    layers, place = [], 0
    for level, (_, number) in enumerate(VGG16_BLOCKS, start=1):
        for index in range(number):
            paper, block = f"conv{level}_{index + 1}", f"block{level}.{2 * index}"
            layers.append((paper, block, place))
            place += 2  # each has its ReLU
        place += 1  # the pool
    return layers


_VGG16_LAYERS = {
    name: f"features.{place}" for paper, block, place in _vgg16_layers() for name in (paper, block)
}
_VGG16_CLASSIFIER = {**_VGG16_LAYERS, "fc6": "classifier.0", "fc7": "classifier.3"}
_ALEXNET_CLASSIFIER = {
    **{f"conv{level + 1}": f"features.{place}" for level, place in enumerate((0, 3, 6, 8, 10))},
    "fc6": "classifier.1",
    "fc7": "classifier.4",
}


def _same(layer: str) -> str:
    return layer


def _in_googlenet(layer: str) -> str | None:
    trunk = "trunk."
    return layer.removeprefix(trunk) if layer.startswith(trunk) else None


def _in_backbone(layer: str) -> str | None:
    backbone = "backbone."
    return layer.removeprefix(backbone) if layer.startswith(backbone) else None


def _in_pretrained_net(layer: str) -> str:
    place = _VGG16_LAYERS.get(layer)
    return f"pretrained_net.{place}" if place else layer


def _lite0_layers() -> dict[str, str]:
    """Name EfficientNet-Lite0's layers as our encoder, and as its PyTorch port."""
    layers = _convolution("encoder.levels.0.0", "_conv_stem", "_bn0")
    number = 0
    for level, stages in enumerate(LITE0_LEVELS):
        place = 0 if level else 1  # behind the stem
        for blocks, _, expansion, _ in stages:
            for _ in range(blocks):
                parts = [("expand", 0)] * (expansion > 1) + [("depthwise", 1), ("project", 2)]
                for index, (part, norm) in enumerate(parts):
                    ours = f"encoder.levels.{level}.{place}.body.{index}"
                    theirs = f"_blocks.{number}._"
                    layers |= _convolution(ours, f"{theirs}{part}_conv", f"{theirs}bn{norm}")
                place, number = place + 1, number + 1
    return layers


def _convolution(ours: str, conv: str, norm: str) -> dict[str, str]:
    return {f"{ours}.conv": conv, f"{ours}.norm": norm}


def _resnet(depth: int, *needs: str) -> Kind:
    return Kind(
        name=f"torchvision's fcn_resnet{depth}",
        networks=(f"fcn_resnet{depth}",),
        needs=frozenset({"backbone.conv1.weight", "classifier.0.weight", *needs}),
        source_of=_same,
        first="backbone.conv1",
        preprocessing=_IMAGENET,
        scores="classifier.4",
        dropped=("aux_classifier.",),
        voc=True,
    )


def _resnet_classifier(depth: int, *needs: str) -> Kind:
    return Kind(
        name=f"torchvision's ResNet-{depth} classifier",
        networks=(f"fcn_resnet{depth}",),
        # Smaller ResNets have no third convolution in a block.
        needs=frozenset({"conv1.weight", "layer1.0.conv3.weight", *needs}),
        source_of=_in_backbone,
        first="conv1",
        preprocessing=_IMAGENET,
        dropped=("fc.",),
    )


def _port(
    name: str, networks: tuple[str, ...], first: str, *one_of: str, caution: str = ""
) -> Kind:
    return Kind(
        caution=caution,
        name=f"a PyTorch port of the paper's {name}",
        networks=networks,
        needs=frozenset({f"{first}.weight", "score_fr.weight"}),
        one_of=frozenset(f"{layer}.weight" for layer in one_of),
        source_of=_same,
        first=first,
        preprocessing=_CAFFE,
        scores="score_fr",
        voc=True,
    )


# In the order in which they are tried: a name that only some have stands before the rest.
KINDS = (
    Kind(
        name="torchvision's VGG16 classifier",
        networks=(
            *("fcn32s_vgg16", "fcn16s_vgg16", "fcn8s_vgg16", "fcn8s_vgg16_at_once"),
            "fcn_all_skips_vgg16",
        ),
        # Of all VGGs only VGG16 without batch norm has both.
        needs=frozenset({"features.0.weight", "features.26.weight"}),
        source_of=_VGG16_CLASSIFIER.get,
        first="features.0",
        preprocessing=_IMAGENET,
        dropped=("classifier.",),
    ),
    Kind(
        name="torchvision's AlexNet classifier",
        networks=("fcn32s_alexnet_owt",),
        needs=frozenset({"features.0.weight", "features.6.weight", "features.10.weight"}),
        source_of=_ALEXNET_CLASSIFIER.get,
        first="features.0",
        preprocessing=_IMAGENET,
        dropped=("classifier.",),
        hint="; fcn32s_alexnet is the paper's CaffeNet, with other channels, groups and local "
        "response normalisation",
    ),
    Kind(
        name="torchvision's GoogLeNet classifier",
        networks=("fcn32s_googlenet",),
        needs=frozenset({"conv1.conv.weight", "inception3a.branch1.conv.weight"}),
        source_of=_in_googlenet,
        first="conv1.conv",
        preprocessing=_HALVES,
        dropped=("aux1.", "aux2.", "fc."),
    ),
    Kind(
        name="the PyTorch port of EfficientNet-Lite0's classifier",
        networks=("fcn_lite0",),
        needs=frozenset({"_conv_stem.weight", "_blocks.15._project_conv.weight"}),
        source_of=_lite0_layers().get,
        first="_conv_stem",
        preprocessing=_LITE,
        dropped=("_conv_head.", "_bn1.", "_fc."),
    ),
    _resnet_classifier(101, "layer3.22.conv1.weight"),
    _resnet_classifier(50),
    _resnet(101, "backbone.layer3.22.conv1.weight"),
    _resnet(50),
    _port(
        "FCN-8s",
        ("fcn8s_vgg16", "fcn8s_vgg16_at_once"),
        "conv1_1",
        *("score_pool3", "upscore_pool4", "upscore8"),
        caution="FCN-8s trained in stages and at once have the same tensors and different scales; "
        "the first is fcn8s_vgg16, the second fcn8s_vgg16_at_once",
    ),
    _port("FCN-16s", ("fcn16s_vgg16",), "conv1_1", "score_pool4", "upscore2", "upscore16"),
    _port("FCN-32s", ("fcn32s_vgg16",), "conv1_1"),
    _port("FCN-AlexNet", ("fcn32s_alexnet",), "conv1"),
    Kind(
        name="the PyTorch port of VGG16 with all skips (FCNs)",
        networks=("fcn_all_skips_vgg16",),
        needs=frozenset({"pretrained_net.features.0.weight", "pretrained_net.features.26.weight"}),
        source_of=_in_pretrained_net,
        first="pretrained_net.features.0",
        preprocessing=_ROUNDED,
        scores="classifier",
        caution="FCN32s, FCN16s and FCN8s of the same author have the same tensors and are other "
        "networks; only weights of FCNs are right here",
    ),
    Kind(
        name="the vanilla network with all skips",
        networks=("fcn_all_skips",),
        needs=frozenset({"block1.0.weight", "deconv1.weight"}),
        source_of=_same,
        first="block1.0",
        preprocessing=_IMAGENET,
        scores="classifier",
        caution="its weights are nobody's publication: if its images were not normalised with "
        "ImageNet's numbers in RGB, give channel_order, mean and std",
    ),
)


@dataclass(frozen=True)
class Published:
    """Weights that torchvision publishes."""

    url: str
    preprocessing: Preprocessing


_TORCHVISION = (
    models.VGG16_Weights,
    models.AlexNet_Weights,
    models.GoogLeNet_Weights,
    models.ResNet50_Weights,
    models.ResNet101_Weights,
    segmentation.FCN_ResNet50_Weights,
    segmentation.FCN_ResNet101_Weights,
)


def published(name: str) -> Published:
    """Look up weights by torchvision's name, as in `VGG16_Weights.IMAGENET1K_V1`.

    Raises:
        CheckpointError: torchvision has none of this name that can be imported.
    """
    # Unlike the family itself, its __members__ hold DEFAULT too.
    known = {
        f"{family.__name__}.{member}": weights
        for family in _TORCHVISION
        for member, weights in family.__members__.items()
    }
    if name not in known:
        raise CheckpointError(
            f"torchvision:{name} can't be imported; there are: {', '.join(known)}"
        )
    weights = known[name]
    if isinstance(weights, models.GoogLeNet_Weights):
        return Published(weights.url, _HALVES)
    transforms = weights.transforms()
    numbers = (tuple(transforms.mean), tuple(transforms.std))
    return Published(weights.url, Preprocessing("RGB", *numbers))


def sources_of(network: str) -> list[str]:
    """Say which sources a network's weights are imported from.

    Args:
        network: Name of the architecture.
    """
    return [
        kind.name if kind.scores else f"{kind.name} (to train from)"
        for kind in KINDS
        if network in kind.networks
    ]


def recognise(tensors: Tensors) -> Kind:
    """Find out what a state dict is.

    Raises:
        CheckpointError: It is nothing that can be imported.
    """
    for kind in KINDS:
        if kind.needs <= tensors.keys() and (not kind.one_of or kind.one_of & tensors.keys()):
            return kind
    known = "; ".join(kind.name for kind in KINDS)
    raise CheckpointError(
        f"{len(tensors)} tensors that belong to nothing known: {shorten(list(tensors))}; "
        f"what can be imported: {known}"
    )


def shorten(names: Sequence[str]) -> str:
    """Join the first names for a message."""
    shown = [name[:100] for name in names[:_MAX_SHOWN]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
