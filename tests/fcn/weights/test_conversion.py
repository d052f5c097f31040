"""Importers: what others have published says the same here, or is refused with the reason."""

import argparse
import hashlib
import io
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models
from torchvision.models.segmentation import fcn_resnet50, fcn_resnet101

import fcn
from fcn.inference.preprocess import Preprocess
from fcn.models import NETWORKS, build
from fcn.weights import CheckpointError
from fcn.weights.classes import numbered_classes, parse_classes
from fcn.weights.conversion import Wanted, convert, read_tensors
from fcn.weights.files import restore, save
from fcn.weights.published import KINDS, Published, published, recognise, sources_of
from fcn.weights.record import Checkpoint

Tensors = dict[str, torch.Tensor]

_VGG16 = (2, 2, 3, 3, 3)

_RESNET50 = "FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1"


def _drawn(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return _redraw(torch.empty(shape), seed)


def _redraw(tensor: torch.Tensor, seed: int) -> torch.Tensor:
    tensor.normal_(generator=torch.Generator().manual_seed(seed))
    return tensor.mul_((2 / max(1, math.prod(tensor.shape[1:]))) ** 0.5)


def _draw(network: nn.Module) -> nn.Module:
    """Give every tensor, the running statistics among them, values of its own."""
    for seed, (name, tensor) in enumerate(network.state_dict().items()):
        if not tensor.is_floating_point():
            tensor.fill_(3)
        elif tensor.dim() > 1:
            _redraw(tensor, seed)
        else:
            drawn = torch.rand(tensor.shape, generator=torch.Generator().manual_seed(seed))
            tensor.copy_(drawn + 0.5 if "var" in name or "weight" in name else drawn - 0.5)
    return network.eval()


def _without_memory(make: Callable[..., nn.Module], **arguments: object) -> nn.Module:
    """Build a network whose own initialisation, which takes seconds, is left out."""
    with torch.device("meta"):
        network = make(**arguments)
    return _draw(network.to_empty(device="cpu"))


def _images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def _dense_tent(channels: int, kernel: int) -> torch.Tensor:
    """Fill a transposed convolution's kernels as `surgery.interp` does, on the diagonal."""
    factor = (kernel + 1) // 2
    centre = factor - 1 if kernel % 2 else factor - 0.5
    tent = [1 - abs(place - centre) / factor for place in range(kernel)]
    weight = torch.zeros(channels, channels, kernel, kernel)
    for channel in range(channels):
        weight[channel, channel] = torch.tensor([[a * b for a in tent] for b in tent])
    return weight


_UPS = {
    "fcn32s_vgg16": {"upscore": 64},
    "fcn16s_vgg16": {"upscore2": 4, "upscore16": 32},
    "fcn8s_vgg16": {"upscore2": 4, "upscore_pool4": 4, "upscore8": 16},
    "fcn8s_vgg16_at_once": {"upscore2": 4, "upscore_pool4": 4, "upscore8": 16},
}


def _port(network: str, num_classes: int = 5, width: int = 4, in_channels: int = 3) -> Tensors:
    """Write the state dict of a published port, narrow, with dense bilinear kernels."""
    shapes: dict[str, tuple[int, ...]] = {}
    before = in_channels
    for level, number in enumerate(_VGG16, start=1):
        for index in range(1, number + 1):
            after = width * min(8, 2 ** (level - 1))
            shapes[f"conv{level}_{index}"] = (after, before, 3, 3)
            before = after
    shapes["fc6"] = (64 * width, 8 * width, 7, 7)
    shapes["fc7"] = (64 * width, 64 * width, 1, 1)
    shapes["score_fr"] = (num_classes, 64 * width, 1, 1)
    if "16s" in network or "8s" in network:
        shapes["score_pool4"] = (num_classes, 8 * width, 1, 1)
    if "8s" in network:
        shapes["score_pool3"] = (num_classes, 4 * width, 1, 1)
    tensors = {}
    for seed, (layer, shape) in enumerate(shapes.items()):
        tensors[f"{layer}.weight"] = _drawn(shape, seed)
        tensors[f"{layer}.bias"] = _drawn((shape[0],), -seed)
    ups = {f"{layer}.weight": _dense_tent(num_classes, kernel)
           for layer, kernel in _UPS[network].items()}  # fmt: skip
    return {**tensors, **ups}


def _run_port(network: str, tensors: Tensors, images: torch.Tensor) -> torch.Tensor:
    """Run the published definition, dense kernels and crops included."""
    scale = (0.01, 0.0001) if network.endswith("at_once") else (1, 1)
    pools, features = [], images
    for level, number in enumerate(_VGG16, start=1):
        for index in range(1, number + 1):
            name = f"conv{level}_{index}"
            padding = 100 if name == "conv1_1" else 1
            features = F.relu(
                F.conv2d(features, tensors[f"{name}.weight"], tensors[f"{name}.bias"], 1, padding)
            )
        features = F.max_pool2d(features, 2, 2, ceil_mode=True)
        pools.append(features)

    def conv(name: str, given: torch.Tensor) -> torch.Tensor:
        return F.conv2d(given, tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def up(name: str, given: torch.Tensor) -> torch.Tensor:
        weight = tensors[f"{name}.weight"]
        return F.conv_transpose2d(given, weight, stride=weight.shape[-1] // 2)

    def cut(given: torch.Tensor, first: int, like: torch.Tensor) -> torch.Tensor:
        height, width = like.shape[-2:]
        return given[..., first : first + height, first : first + width]

    scores = conv("score_fr", F.relu(conv("fc7", F.relu(conv("fc6", features)))))
    if "32s" in network:
        return cut(up("upscore", scores), 19, images)
    scores = up("upscore2", scores)
    scores = scores + cut(conv("score_pool4", pools[3] * scale[0]), 5, scores)
    if "16s" in network:
        return cut(up("upscore16", scores), 27, images)
    scores = up("upscore_pool4", scores)
    scores = scores + cut(conv("score_pool3", pools[2] * scale[1]), 9, scores)
    return cut(up("upscore8", scores), 31, images)


def _again(tensors: Tensors, wanted: Wanted) -> tuple[nn.Module, Checkpoint]:
    """Import, save and load, as the command and its users do."""
    imported = convert(tensors, wanted)
    record, data = save(imported.record, imported.network)
    read = Checkpoint.from_json(record.to_json())
    return restore(read, data, allow_untrained=bool(record.untrained_layers)), read


def _assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * expected.abs().max().item())


# The paper's networks from their ports


@pytest.mark.parametrize("network", list(_UPS))
@pytest.mark.parametrize("learned", [False, True], ids=["fixed", "learned"])
@torch.no_grad()
def test_a_port_of_the_paper_says_the_same(network: str, learned: object) -> None:
    """Scores are those of the published definition, for kernels that interpolate or learned."""
    tensors = _port(network)
    if learned:
        # One changed layer makes all of them learned.
        tensors[next(iter(_UPS[network])) + ".weight"] += 0.01
    loaded, record = _again(tensors, Wanted(network))
    images = _images(2, 3, 37, 50)
    _assert_close(loaded(images), _run_port(network, tensors, images))
    assert record.upsampling == ("learned" if learned else "fixed")
    dropped = [] if learned else [name for name in tensors if "upscore" in name]
    assert record.provenance["dropped"] == dropped
    assert (record.width, record.num_classes, record.untrained_layers) == (4, 5, ())


def test_a_port_keeps_the_preprocessing_of_caffe() -> None:
    """A pixel becomes what Caffe made of it: BGR from 0 to 255, minus the published mean."""
    record = convert(_port("fcn32s_vgg16"), Wanted("fcn32s_vgg16")).record
    pixel = torch.tensor([[[[200, 100, 50]]]], dtype=torch.uint8)
    found = Preprocess(record)(pixel).flatten()
    expected = torch.tensor([50 - 104.00699, 100 - 116.66877, 200 - 122.67892])
    torch.testing.assert_close(found, expected)


def test_a_port_with_21_classes_has_the_names_of_voc() -> None:
    """21 classes are PASCAL VOC's with its palette; another number is numbered."""
    classes = convert(_port("fcn32s_vgg16", 21), Wanted("fcn32s_vgg16")).record.classes
    shown = [(label.name, label.color) for label in (classes[0], classes[1], classes[20])]
    assert shown == [
        *(("background", (0, 0, 0)), ("aeroplane", (128, 0, 0)), ("tvmonitor", (0, 64, 128))),
    ]
    classes = convert(_port("fcn32s_vgg16", 5), Wanted("fcn32s_vgg16")).record.classes
    assert classes == numbered_classes(5)


@torch.no_grad()
def test_half_precision_becomes_single() -> None:
    """A source in fp16, kernels included, gives the network of the same values in fp32."""
    tensors = {name: tensor.half() for name, tensor in _port("fcn16s_vgg16").items()}
    imported = convert(tensors, Wanted("fcn16s_vgg16"))
    assert imported.record.upsampling == "fixed"
    for name, tensor in imported.network.state_dict().items():
        assert torch.equal(tensor, tensors[name].float())


@torch.no_grad()
def test_the_import_shares_nothing_with_its_source() -> None:
    """Changing the source afterwards leaves the network as it was."""
    tensors = _port("fcn32s_vgg16")
    network = convert(tensors, Wanted("fcn32s_vgg16")).network
    before = network.conv1_1.weight.clone()
    tensors["conv1_1.weight"].zero_()
    assert torch.equal(network.conv1_1.weight, before)


def test_padding_is_chosen_by_the_import() -> None:
    """The same weights run in either padding, and the record says which."""
    for padding in ("paper", "tight"):
        found = convert(_port("fcn32s_vgg16"), Wanted("fcn32s_vgg16", padding=padding)).record
        assert found.padding == padding


def test_the_port_of_alexnet_is_the_papers() -> None:
    """A port under the paper's names, with the shapes of CaffeNet, fills FCN-AlexNet."""
    with torch.device("meta"):
        shapes = build("fcn32s_alexnet", 3).state_dict()
    tensors = {name: torch.zeros(tensor.shape) for name, tensor in shapes.items()}
    tensors["conv2.weight"][5, 40, 1, 2] = 7
    tensors["upscore.weight"] = _dense_tent(3, 63)
    imported = convert(tensors, Wanted("fcn32s_alexnet"))
    assert (imported.record.upsampling, imported.dropped) == ("fixed", ("upscore.weight",))
    assert imported.network.conv2.weight[5, 40, 1, 2] == 7
    assert imported.record.channel_order == "BGR"


# The networks with all skips


class _AllSkips(nn.Module):
    """The second network of the notes: their decoder on VGG16's features, narrow."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        layout = [
            entry
            for level, number in enumerate(_VGG16)
            for entry in [*[width * min(8, 2**level)] * number, "M"]
        ]
        self.pretrained_net = nn.Module()
        self.pretrained_net.features = models.vgg.make_layers(layout)
        widths = [8 * width, 8 * width, 4 * width, 2 * width, width, width // 2]
        for step in range(1, 6):
            deconv = nn.ConvTranspose2d(
                *widths[step - 1 : step + 1], 3, stride=2, padding=1, output_padding=1
            )
            self.add_module(f"deconv{step}", deconv)
            self.add_module(f"bn{step}", nn.BatchNorm2d(widths[step]))
        self.classifier = nn.Conv2d(width // 2, num_classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pools, features = [], images
        for layer in self.pretrained_net.features:
            features = layer(features)
            if isinstance(layer, nn.MaxPool2d):
                pools.append(features)
        for step in range(1, 6):
            features = self.get_submodule(f"deconv{step}")(features)
            features = self.get_submodule(f"bn{step}")(F.relu(features))
            if step < 5:
                features = features + pools[4 - step]
        return self.classifier(features)


@torch.no_grad()
def test_the_port_with_all_skips_says_the_same() -> None:
    """VGG16's features land in the blocks, and the scores are those of the source."""
    source = _draw(_AllSkips(7, 4))
    loaded, record = _again(source.state_dict(), Wanted("fcn_all_skips_vgg16"))
    images = _images(2, 3, 64, 96)
    _assert_close(loaded(images), source(images))
    assert (record.width, record.classes) == (4, numbered_classes(7))
    assert record.provenance["dropped"] == []
    pixel = torch.tensor([[[[200, 100, 50]]]], dtype=torch.uint8)
    expected = torch.tensor([50 - 103.939, 100 - 116.779, 200 - 123.68]) / 255
    torch.testing.assert_close(Preprocess(record)(pixel).flatten(), expected)


@torch.no_grad()
def test_the_vanilla_network_says_the_same() -> None:
    """The names of the notes are ours: every tensor is taken as it is."""
    source = _draw(build("fcn_all_skips", 3, width=4))
    loaded, record = _again(source.state_dict(), Wanted("fcn_all_skips"))
    images = _images(1, 3, 33, 40)
    assert torch.equal(loaded(images), source(images))
    assert (record.channel_order, record.mean[0], record.std[0]) == ("RGB", 0.485, 0.229)


def test_old_files_did_not_count_batches() -> None:
    """Where the count of batches is missing it becomes 0, and nothing else may be missing."""
    tensors = {
        name: tensor
        for name, tensor in build("fcn_all_skips", 3, width=4).state_dict().items()
        if "num_batches" not in name
    }
    state = convert(tensors, Wanted("fcn_all_skips")).network.state_dict()
    assert state["bn2.num_batches_tracked"] == 0


# torchvision's segmentation networks


@pytest.mark.parametrize(
    ("network", "make"), [("fcn_resnet50", fcn_resnet50), ("fcn_resnet101", fcn_resnet101)]
)
@torch.no_grad()
def test_torchvisions_network_says_the_same(network: str, make: Callable[..., nn.Module]) -> None:
    """Scores are torchvision's in evaluation mode; only the auxiliary head is dropped."""
    source = _without_memory(make, weights=None, weights_backbone=None, aux_loss=True)
    imported = convert(source.state_dict(), Wanted(network))
    images = _images(1, 3, 65, 90)
    _assert_close(imported.network(images), source(images)["out"])
    assert {name.partition(".")[0] for name in imported.dropped} == {"aux_classifier"}
    assert [label.name for label in imported.record.classes[:2]] == ["background", "aeroplane"]
    assert imported.record.classes[15].color == (192, 128, 128)
    assert imported.record.untrained_layers == ()


# torchvision's classifiers


def _narrow_vgg16() -> nn.Module:
    """Build torchvision's VGG16 with a sixteenth of its channels."""
    network = nn.Module()
    network.features = _AllSkips(2, 4).pretrained_net.features
    network.classifier = nn.Sequential(
        *(nn.Linear(32 * 49, 256), nn.ReLU(), nn.Dropout()),
        *(nn.Linear(256, 256), nn.ReLU(), nn.Dropout(), nn.Linear(256, 10)),
    )
    return _draw(network)


def _behind(network: nn.Module, layer: str, images: torch.Tensor) -> torch.Tensor:
    """Run a network; give what one of its layers has said."""
    said: list[torch.Tensor] = []
    network.get_submodule(layer).register_forward_hook(lambda *call: said.append(call[2].clone()))
    network(images)
    return said[0]


@pytest.mark.parametrize(
    ("network", "untrained"),
    [
        ("fcn32s_vgg16", ("score_fr",)),
        ("fcn16s_vgg16", ("score_fr", "score_pool4")),
        ("fcn8s_vgg16", ("score_fr", "score_pool4", "score_pool3")),
        ("fcn8s_vgg16_at_once", ("score_fr", "score_pool4", "score_pool3")),
    ],
)
@torch.no_grad()
def test_vgg16_becomes_the_trunk(network: str, untrained: tuple[str, ...]) -> None:
    """Where fc6 sees the whole image, fc7 says what the classifier says; scores are untrained."""
    source = _narrow_vgg16()
    loaded, record = _again(source.state_dict(), Wanted(network, num_classes=6, padding="tight"))
    images = _images(1, 3, 224, 224)
    expected = source.classifier[:4](source.features(images).flatten(1))
    _assert_close(_behind(loaded, "fc7", images)[:, :, 3, 3], expected)
    assert record.untrained_layers == untrained
    assert record.provenance["dropped"] == ["classifier.6.weight", "classifier.6.bias"]
    assert not loaded.score_fr.weight.any()


@torch.no_grad()
def test_vgg16_becomes_the_trunk_of_all_skips() -> None:
    """Features are the source's; the whole classifier is dropped, the decoder is untrained."""
    source = _narrow_vgg16()
    loaded, record = _again(source.state_dict(), Wanted("fcn_all_skips_vgg16", num_classes=6))
    images = _images(1, 3, 64, 96)
    _assert_close(_behind(loaded, "block5", images), source.features(images))
    decoder = [f"{name}{step}" for step in range(1, 6) for name in ("deconv", "bn")]
    assert record.untrained_layers == (*decoder, "classifier")
    assert len(record.provenance["dropped"]) == 6
    assert loaded.deconv1.weight.std() > 0


def test_untrained_layers_start_alike_in_every_import() -> None:
    """The same source gives the same bytes, whatever the process has drawn before."""
    tensors = _narrow_vgg16().state_dict()
    hashes = set()
    for seed in range(2):
        torch.manual_seed(seed)
        imported = convert(tensors, Wanted("fcn_all_skips_vgg16", num_classes=6))
        hashes.add(save(imported.record, imported.network)[0].weights_sha256)
    assert len(hashes) == 1


@torch.no_grad()
def test_alexnet_becomes_the_trunk() -> None:
    """With torchvision's own paddings fc7 says what its classifier says."""
    source = _without_memory(models.alexnet)
    imported = convert(source.state_dict(), Wanted("fcn32s_alexnet_owt", num_classes=2))
    images = _images(1, 3, 224, 224)
    expected = source.classifier[:5](source.features(images).flatten(1))
    network = imported.network
    network.conv1.padding, network.fc6.padding = (2, 2), (0, 0)
    _assert_close(_behind(network, "fc7", images)[:, :, 0, 0], expected)
    assert imported.record.untrained_layers == ("score_fr",)
    assert imported.dropped == ("classifier.6.weight", "classifier.6.bias")


@torch.no_grad()
def test_googlenet_becomes_the_trunk() -> None:
    """Features are the source's, and so is its rescaling of the input."""
    source = _draw(models.googlenet(weights=None, transform_input=True, init_weights=False))
    loaded, record = _again(source.state_dict(), Wanted("fcn32s_googlenet", num_classes=2))
    pixels = torch.randint(0, 256, (1, 64, 96, 3), generator=torch.Generator().manual_seed(0))
    ours = Preprocess(record)(pixels.to(torch.uint8))
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    theirs = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)
    _assert_close(
        _behind(loaded, "trunk.inception5b", ours), _behind(source, "inception5b", theirs)
    )
    assert record.untrained_layers == ("score_fr",)
    assert {name.partition(".")[0] for name in record.provenance["dropped"]} == {
        *("aux1", "aux2", "fc"),
    }


def test_untrained_layers_are_refused_for_labelling() -> None:
    """What a classifier became is loaded to train from, and for nothing else."""
    imported = convert(_narrow_vgg16().state_dict(), Wanted("fcn32s_vgg16", num_classes=6))
    record, data = save(imported.record, imported.network)
    with pytest.raises(CheckpointError, match="nobody has trained: score_fr; these weights are a"):
        restore(record, data)


# Classes and preprocessing that are given


_CLASSES = parse_classes(
    '{"classes": [{"id": 0, "name": "a", "color": [1, 2, 3]}, '
    '{"id": 1, "name": "b", "color": [4, 5, 6]}]}'
)


def test_classes_may_be_given() -> None:
    """Given names are taken if there are as many as the source has, and for classifiers."""
    tensors = _port("fcn32s_vgg16", 2)
    assert convert(tensors, Wanted("fcn32s_vgg16", classes=_CLASSES)).record.classes == _CLASSES
    wanted = Wanted("fcn32s_vgg16", classes=_CLASSES, num_classes=2)
    assert convert(_narrow_vgg16().state_dict(), wanted).record.classes == _CLASSES
    assert convert(tensors, wanted).record.classes == _CLASSES


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"num_classes": 7}, "num_classes says 7 classes, the source has 5 .*or make it 5"),
        ({"classes": _CLASSES}, "classes says 2 classes, the source has 5"),
        ({"classes": _CLASSES, "num_classes": 5}, "num_classes=5, but classes has 2"),
        ({"mean": (0.5,)}, "mean has 1 numbers, the source takes images of 3 channels; give mean"),
        ({"std": (1.0, 1.0, 0.0)}, "std above 0"),
        ({"padding": "wide"}, "padding='wide'; it is one of paper, tight"),
    ],
)
def test_what_contradicts_the_source_is_refused(wanted: dict[str, object], message: str) -> None:
    """Classes and preprocessing that the source can't have are refused with both numbers."""
    with pytest.raises(CheckpointError, match=message):
        convert(_port("fcn32s_vgg16"), Wanted("fcn32s_vgg16", **wanted))


def test_preprocessing_may_be_given() -> None:
    """Given numbers go before the published ones."""
    wanted = Wanted("fcn32s_vgg16", channel_order="RGB", mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
    record = convert(_port("fcn32s_vgg16"), wanted).record
    assert (record.channel_order, record.mean, record.std) == ("RGB", wanted.mean, wanted.std)


def test_images_of_other_channels_need_numbers_for_each() -> None:
    """A network for images of one channel is imported once its mean and std are given."""
    tensors = _port("fcn32s_vgg16", in_channels=1)
    with pytest.raises(CheckpointError, match="mean has 3 numbers, the source takes images of 1 "):
        convert(tensors, Wanted("fcn32s_vgg16"))
    record = convert(tensors, Wanted("fcn32s_vgg16", mean=(0.4,), std=(1.0,))).record
    assert record.in_channels == 1


@torch.no_grad()
def test_resnet_becomes_the_backbone() -> None:
    """Features are the source's where nothing is dilated; the classifier is dropped."""
    source = _without_memory(models.resnet50)
    imported = convert(source.state_dict(), Wanted("fcn_resnet50", num_classes=2))
    images = _images(1, 3, 64, 96)
    _assert_close(
        _behind(imported.network, "backbone.layer2", images), _behind(source, "layer2", images)
    )
    assert imported.kind.name == "torchvision's ResNet-50 classifier"
    assert imported.record.untrained_layers == ("classifier.0", "classifier.1", "classifier.4")
    assert imported.dropped == ("fc.weight", "fc.bias")


def test_resnets_are_told_apart() -> None:
    """ResNet-101 is known by its depth, ResNet-152 refused for what it has beyond it."""
    with torch.device("meta"):
        assert recognise(models.resnet101().state_dict()).networks == ("fcn_resnet101",)
        deeper = models.resnet152().state_dict()
    deeper = {
        name: torch.zeros((), dtype=one.dtype).expand(one.shape) for name, one in deeper.items()
    }
    with pytest.raises(CheckpointError, match=r"layer2\.4"):
        convert(deeper, Wanted("fcn_resnet101", num_classes=2))


def test_a_classifier_needs_classes() -> None:
    """The 1000 classes of ImageNet are nobody's masks: the number has to be said."""
    with pytest.raises(CheckpointError, match=r"VGG16 classifier, .* give num_classes or classes"):
        convert(_narrow_vgg16().state_dict(), Wanted("fcn32s_vgg16"))


# Sources that do not fit


def _alexnet_names() -> Tensors:
    with torch.device("meta"):
        return models.alexnet().state_dict()


@pytest.mark.parametrize(
    ("make", "network", "message"),
    [
        (_alexnet_names, "fcn32s_alexnet",
         "torchvision's AlexNet classifier and becomes fcn32s_alexnet_owt; fcn32s_alexnet is the"),
        (lambda: _port("fcn8s_vgg16"), "fcn16s_vgg16",
         "a PyTorch port of the paper's FCN-8s and becomes fcn8s_vgg16 or fcn8s_vgg16_at_once"),
        (lambda: _port("fcn32s_vgg16"), "fcn16s_vgg16", "FCN-32s and becomes fcn32s_vgg16$"),
        (lambda: {"a.weight": torch.zeros(1), "b": torch.zeros(1)}, "fcn_all_skips",
         "2 tensors that belong to nothing known: a.weight, b; what can be imported: torch"),
    ],
)  # fmt: skip
def test_a_source_that_does_not_fit_is_named(
    make: Callable[[], Tensors], network: str, message: str
) -> None:
    """The refusal says what the source is and which networks it becomes."""
    with pytest.raises(CheckpointError, match=message):
        convert(make(), Wanted(network, num_classes=2))


def test_tensors_that_do_not_fit_are_listed_by_their_own_names() -> None:
    """Missing, surplus, misshapen and infinite tensors stand in one message, as in the source."""
    tensors = _narrow_vgg16().state_dict()
    del tensors["features.5.weight"]
    tensors["features.31.weight"] = torch.zeros(1)
    tensors["classifier.0.weight"] = torch.zeros(256, 7)
    tensors["features.2.bias"][1] = math.inf
    with pytest.raises(CheckpointError) as caught:
        convert(tensors, Wanted("fcn32s_vgg16", num_classes=3))
    for words in (
        "do not fit fcn32s_vgg16, made from torchvision's VGG16 classifier: ",
        "missing: features.5.weight;",
        "surplus: features.31.weight;",
        "classifier.0.weight has shape (256, 7), expected (256, 32, 7, 7)",
        "features.2.bias holds NaN or infinity",
    ):
        assert words in str(caught.value)


@pytest.mark.parametrize("layer", ["score_fr", "conv5_2", "upscore2"])
def test_a_port_that_lacks_a_layer_is_refused(layer: str) -> None:
    """No layer of a port may be missing, upsampling among them."""
    tensors = _port("fcn8s_vgg16")
    del tensors[f"{layer}.weight"]
    with pytest.raises(CheckpointError, match=f"missing: {layer}.weight|nothing known"):
        convert(tensors, Wanted("fcn8s_vgg16"))


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("conv1_1.weight", torch.zeros(4), r"conv1_1.weight has shape \(4,\); that of a conv"),
        ("score_fr.weight", torch.zeros(5, 1), r"score_fr.weight has shape \(5, 1\); that of"),
        ("score_fr.weight", torch.zeros(300, 256, 1, 1), "300 classes; a mask of 8 bits holds"),
        ("conv1_1.weight", torch.zeros(5, 3, 3, 3), "width=5; it is an even number"),
        ("conv1_1.weight", torch.zeros(100_000, 3, 1, 1), "has shape .*, expected .*; and 21 more"),
        ("fc7.weight", torch.zeros(256, 256, 1, 1, dtype=torch.int8), r"fc7.weight \(torch.int8\)"),
        ("fc7.bias", torch.full((256,), 1e300, dtype=torch.float64), "fc7.bias holds NaN or inf"),
    ],
)  # fmt: skip
def test_tensors_of_a_wrong_form_are_refused(name: str, tensor: torch.Tensor, message: str) -> None:
    """Shapes and types that no network has are refused, before memory of their size is taken."""
    with pytest.raises(CheckpointError, match=message):
        convert({**_port("fcn32s_vgg16"), name: tensor}, Wanted("fcn32s_vgg16"))


# Reading files


def _pickled(value: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


_SMALL = {"a.bias": torch.zeros(2), "a.weight": torch.arange(6.0).view(2, 3)}
_PARALLEL = {f"module.{name}": tensor for name, tensor in _SMALL.items()}


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (_pickled(_SMALL), "a.pth"),
        (_pickled(_SMALL, _use_new_zipfile_serialization=False), "a.pt"),
        (safetensors.torch.save(_SMALL), "a.safetensors"),
        (_pickled({"epoch": 3, "state_dict": _SMALL}), "a.pth"),
        (_pickled({"model": _SMALL, "args": argparse.Namespace(lr=0.1)}), "a.pth"),
        (_pickled({"model_state_dict": {"state_dict": _PARALLEL}}), "a.tar"),
        (_pickled({name: nn.Parameter(tensor) for name, tensor in _SMALL.items()}), "a.pth"),
    ],
    ids=["new", "old", "safetensors", "state_dict", "model", "module", "parameters"],
)
def test_files_are_read(data: bytes, name: str) -> None:
    """Every form in which trainers save gives the same tensors under the same names."""
    found = read_tensors(data, name)
    assert list(found) == list(_SMALL)
    assert all(torch.equal(found[key], tensor) for key, tensor in _SMALL.items())
    assert not any(tensor.requires_grad for tensor in found.values())


class _Harmful:
    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("new", [True, False], ids=["new", "old"])
def test_code_in_a_file_does_not_run(new: object, tmp_path: Path) -> None:
    """A pickle that would make a folder is refused with the remedy, and the folder is not made."""
    harmful = {**_SMALL, "b": _Harmful(tmp_path / "made")}
    data = _pickled(harmful, _use_new_zipfile_serialization=new)
    with pytest.raises(CheckpointError, match=r"code from files is not run.*torch\.save\(model"):
        read_tensors(data, "a.pth")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b"", "a.pth", "no readable PyTorch file"),
        (_pickled(_SMALL)[:300], "a.pth", "no readable PyTorch file|not run"),
        (b"<!doctype html>", "a.pth", "no readable PyTorch file: it begins with b'<!doctype"),
        (b"<!doctype html>", "a.safetensors", "no readable safetensors file"),
        (_pickled([1, 2]), "a.pth", "it holds list and no state dict"),
        (_pickled({}), "a.pth", "it holds dict and no state dict"),
        (_pickled({**_SMALL, "epoch": 3}), "a.pth", "it holds more than tensors: epoch"),
    ],
)
def test_other_files_are_refused(data: bytes, name: str, message: str) -> None:
    """Files that are no state dict are refused with what they are."""
    with pytest.raises(CheckpointError, match=message):
        read_tensors(data, name)


# What there is


def test_every_network_has_a_source() -> None:
    """There are weights for every network but ours, and every kind's networks exist."""
    assert [name for name in NETWORKS if not sources_of(name)] == ["fcn_pyramid"]
    assert {network for kind in KINDS for network in kind.networks} == set(NETWORKS) - {
        "fcn_pyramid"
    }


def test_names_of_torchvision_are_known() -> None:
    """A name gives its address and what the weights expect; another one is refused with them."""
    found = published("VGG16_Weights.IMAGENET1K_FEATURES")
    assert found.url.endswith("vgg16_features-amdegroot-88682ab5.pth")
    assert found.preprocessing.std == (1 / 255,) * 3
    assert published("GoogLeNet_Weights.IMAGENET1K_V1").preprocessing.mean == (0.5,) * 3
    with pytest.raises(CheckpointError, match=r"ResNet18.*there are: VGG16_Weights.IMAGENET1K_V1"):
        published("ResNet18_Weights.IMAGENET1K_V1")


@pytest.mark.parametrize(
    "make", [models.vgg19, models.vgg16_bn, models.vgg13, models.vgg11, models.resnet34]
)
def test_relatives_are_not_mistaken(make: Callable[[], nn.Module]) -> None:
    """Other classifiers of torchvision, with names much like these, are not recognised."""
    with torch.device("meta"):
        tensors = make().state_dict()
    with pytest.raises(CheckpointError, match="nothing known"):
        recognise(tensors)


def test_published_weights_are_loaded_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`fcn.load` takes torchvision's name: it downloads, checks the hash, gives the network."""
    source = fcn_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    buffer = io.BytesIO()
    torch.save(source.state_dict(), buffer)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))

    def serve(digest: str) -> None:
        path = tmp_path / f"net-{digest[:8]}.pth"
        path.write_bytes(buffer.getvalue())
        place = Published(path.as_uri(), published(_RESNET50).preprocessing)
        monkeypatch.setattr("fcn.weights.conversion.published", lambda name: place)

    serve("0" * 8)
    with pytest.raises(CheckpointError, match="can't be downloaded: invalid hash"):
        fcn.load(f"torchvision:{_RESNET50}")
    serve(hashlib.sha256(buffer.getvalue()).hexdigest())
    network, record = fcn.load(f"torchvision:{_RESNET50}")
    assert (record.network, record.num_classes, network.training) == ("fcn_resnet50", 21, False)
    expected = source.state_dict()["classifier.4.weight"]
    assert torch.equal(network.state_dict()["classifier.4.weight"], expected)


def test_the_default_of_torchvision_is_known() -> None:
    """Torchvision's name for its newest weights is taken like their own."""
    assert published("FCN_ResNet50_Weights.DEFAULT") == published(_RESNET50)
